// The engines, events and pinned memory of all devices.
#pragma once

#include "stage/cuda_copy_engine.h"
#include "stage/cuda_events.h"
#include "stage/cuda_pinned_memory.h"
#include "stage/device_copies.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ckptring::stage {

class CudaDeviceCopies final : public DeviceCopies {
 public:
  CudaDeviceCopies(const CudaRuntime& runtime, base::LogContext log) noexcept
      : runtime_(runtime), log_(log) {}
  ~CudaDeviceCopies() override;
  CudaDeviceCopies(const CudaDeviceCopies&) = delete;
  CudaDeviceCopies& operator=(const CudaDeviceCopies&) = delete;

  DeviceCopyEngine& to_host(int number) override;
  DeviceCopyEngine& to_device(int number) override;
  DeviceCopyEngine& within(int number) override;
  std::unique_ptr<DeviceMemory> allocate(int number, std::uint64_t bytes) override;
  std::shared_ptr<StreamPoint> mark(int number, void* stream) override;
  std::unique_ptr<PinnedMemory> pin(std::span<std::byte> memory, std::uint64_t piece_bytes,
                                    int number, WaitPopulated wait) override;
  [[nodiscard]] std::vector<std::string> under_way() const override;

 private:
  struct Device {
    Device(const CudaRuntime& runtime, int number) noexcept : events(runtime, number) {}
    CudaEvents events;
    std::unique_ptr<CudaCopyEngine> to_host;
    std::unique_ptr<CudaCopyEngine> to_device;
    std::unique_ptr<CudaCopyEngine> within;
  };
  Device& device(int number);
  DeviceCopyEngine& engine(int number, std::unique_ptr<CudaCopyEngine> Device::*which,
                           CudaCopyEngine::Direction direction);

  const CudaRuntime& runtime_;
  const base::LogContext log_;
  CudaPinnedRanges ranges_;
  mutable std::mutex mutex_;
  std::map<int, Device> devices_;  // guarded by mutex_
};

}  // namespace ckptring::stage
