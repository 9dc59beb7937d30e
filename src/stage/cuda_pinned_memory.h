// Host memory that is registered with the CUDA driver, piece by piece.
#pragma once

#include "base/log.h"
#include "os/own_thread.h"
#include "stage/cuda_runtime.h"
#include "stage/device_copies.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <stop_token>
#include <vector>

namespace ckptring::stage {

class CudaPinnedMemory;

/// All such memory of a process, by address. Thread-safe.
class CudaPinnedRanges {
 public:
  /// A part of what was asked about, from its beginning.
  struct Run {
    std::uint64_t bytes;
    bool pinned;  ///< in one registration
  };
  /// Registers the piece that `at` lies in, if it lies in any and is not registered yet.
  [[nodiscard]] Run run_at(const std::byte* at, std::uint64_t bytes) const;

 private:
  friend class CudaPinnedMemory;
  mutable std::shared_mutex mutex_;
  std::vector<CudaPinnedMemory*> ranges_;
};

class CudaPinnedMemory final : public PinnedMemory {
 public:
  CudaPinnedMemory(const CudaRuntime& runtime, CudaPinnedRanges& ranges, base::LogContext log,
                   std::span<std::byte> memory, std::uint64_t piece_bytes, int device,
                   WaitPopulated wait);
  ~CudaPinnedMemory() override;

  [[nodiscard]] std::span<const std::byte> memory() const noexcept { return memory_; }
  /// `at` lies in this memory.
  [[nodiscard]] CudaPinnedRanges::Run run_at(const std::byte* at, std::uint64_t bytes);

 private:
  enum class Piece : std::uint8_t { fresh, registered, refused };
  [[nodiscard]] std::span<std::byte> piece(std::size_t index) const noexcept;
  /// Whether it is registered now. `populated`: its pages are known to be there.
  bool ensure(std::size_t index, bool populated) noexcept;
  Piece try_register(std::size_t index) noexcept;
  void unregister_all() noexcept;
  void pin_all(const std::stop_token& stop, const WaitPopulated& wait);

  const CudaRuntime& runtime_;
  CudaPinnedRanges& ranges_;
  const base::LogContext log_;
  const std::span<std::byte> memory_;
  const std::uint64_t piece_bytes_;
  const int device_;
  std::mutex registering_;
  std::vector<std::atomic<Piece>> pieces_;
  bool warned_ = false;  ///< guarded by registering_
  std::stop_source stop_;
  os::OwnThread thread_;
};

}  // namespace ckptring::stage
