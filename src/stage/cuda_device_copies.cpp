#include "stage/cuda_device_copies.h"

#include "os/own_thread.h"
#include "stage/cuda_call.h"
#include "stage/cuda_device_memory.h"

#include <fmt/format.h>

#include <utility>

namespace ckptring::stage {

CudaDeviceCopies::~CudaDeviceCopies() {
  if (devices_.empty()) return;
  // Whoever ends this may never have used CUDA: see CudaDeviceScope.
  os::run_in_own_thread("ckptring-end", [this] { devices_.clear(); });
}

CudaDeviceCopies::Device& CudaDeviceCopies::device(int number) {
  return devices_.try_emplace(number, runtime_, number).first->second;
}

DeviceCopyEngine& CudaDeviceCopies::engine(int number,
                                           std::unique_ptr<CudaCopyEngine> Device::*which,
                                           CudaCopyEngine::Direction direction) {
  const std::scoped_lock lock(mutex_);
  Device& found = device(number);
  std::unique_ptr<CudaCopyEngine>& engine = found.*which;
  if (!engine) {
    engine = std::make_unique<CudaCopyEngine>(runtime_, found.events, ranges_, number, direction);
  }
  return *engine;
}

DeviceCopyEngine& CudaDeviceCopies::to_host(int number) {
  return engine(number, &Device::to_host, CudaCopyEngine::Direction::to_host);
}

DeviceCopyEngine& CudaDeviceCopies::to_device(int number) {
  return engine(number, &Device::to_device, CudaCopyEngine::Direction::to_device);
}

DeviceCopyEngine& CudaDeviceCopies::within(int number) {
  return engine(number, &Device::within, CudaCopyEngine::Direction::within);
}

std::unique_ptr<DeviceMemory> CudaDeviceCopies::allocate(int number, std::uint64_t bytes) {
  return std::make_unique<CudaDeviceMemory>(runtime_, number, bytes);
}

std::shared_ptr<StreamPoint> CudaDeviceCopies::mark(int number, void* stream) {
  CudaEvents* events = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    events = &device(number).events;
  }
  const std::string operation =
      fmt::format("record an event on stream {} of device {}", fmt::ptr(stream), number);
  const CudaDeviceScope scope(runtime_, number, operation);
  refuse_graph_capture(runtime_, static_cast<cudaStream_t>(stream), operation);
  return std::make_shared<CudaStreamPoint>(
      events->record(static_cast<cudaStream_t>(stream), operation));
}

std::unique_ptr<PinnedMemory> CudaDeviceCopies::pin(std::span<std::byte> memory,
                                                    std::uint64_t piece_bytes, int number,
                                                    WaitPopulated wait) {
  return std::make_unique<CudaPinnedMemory>(runtime_, ranges_, log_, memory, piece_bytes, number,
                                            std::move(wait));
}

std::vector<std::string> CudaDeviceCopies::under_way() const {
  std::vector<std::string> found;
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return found;
  for (const auto& [number, device] : devices_) {
    for (const CudaCopyEngine* engine :
         {device.to_host.get(), device.to_device.get(), device.within.get()}) {
      if (engine != nullptr && engine->is_copying()) found.push_back(engine->name());
    }
  }
  return found;
}

namespace {

/// What the runtime answers where CUDA is not to be had: no device, no driver, or one that does not
/// fit. Anything else is a failure of CUDA that is there.
bool means_none(cudaError_t result) {
  return result == cudaErrorNoDevice || result == cudaErrorInsufficientDriver ||
         result == cudaErrorStubLibrary || result == cudaErrorSystemDriverMismatch ||
         result == cudaErrorCompatNotSupportedOnDevice;
}

}  // namespace

FoundDeviceCopies find_device_copies(const base::LogContext& log) {
  const FoundCudaRuntime found = find_cuda_runtime();
  if (found.runtime == nullptr) return {nullptr, found.why_not};
  int count = 0;
  const cudaError_t result = found.runtime->get_device_count(&count);
  if (means_none(result)) {
    allow_failure(*found.runtime, result);
    return {nullptr, words_of(*found.runtime, result)};
  }
  check_cuda(*found.runtime, result, "count the CUDA devices");
  if (count == 0) return {nullptr, "no CUDA device was found"};
  return {std::make_unique<CudaDeviceCopies>(*found.runtime, log), ""};
}

}  // namespace ckptring::stage
