#include "stage/cuda_pinned_memory.h"

#include "base/align.h"
#include "os/clock.h"
#include "os/own_thread.h"
#include "os/populate.h"
#include "stage/cuda_call.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <stop_token>
#include <utility>

namespace ckptring::stage {
namespace {

/// While the driver registers memory it holds up whoever launches a kernel, in all threads. So in
/// the background it is left alone for this many times as long as it was kept busy.
constexpr std::uint64_t kPauseFactor = 3;

void pause(const std::stop_token& stop, std::uint64_t ns) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any nobody;
  (void)nobody.wait_for(lock, stop, std::chrono::nanoseconds(ns), [] { return false; });
}

}  // namespace

CudaPinnedRanges::Run CudaPinnedRanges::run_at(const std::byte* at, std::uint64_t bytes) const {
  const std::shared_lock lock(mutex_);
  std::uint64_t unpinned = bytes;
  for (CudaPinnedMemory* const range : ranges_) {
    const std::span<const std::byte> memory = range->memory();
    if (at >= memory.data() && at < memory.data() + memory.size()) return range->run_at(at, bytes);
    if (memory.data() > at) {
      unpinned = std::min(unpinned, static_cast<std::uint64_t>(memory.data() - at));
    }
  }
  return {unpinned, false};
}

CudaPinnedMemory::CudaPinnedMemory(const CudaRuntime& runtime, CudaPinnedRanges& ranges,
                                   base::LogContext log, std::span<std::byte> memory,
                                   std::uint64_t piece_bytes, int device, WaitPopulated wait)
    : runtime_(runtime),
      ranges_(ranges),
      log_(log),
      memory_(memory),
      piece_bytes_(piece_bytes),
      device_(device),
      pieces_(static_cast<std::size_t>(base::ceil_div(memory.size(), piece_bytes))) {
  try {
    thread_ = os::OwnThread("ckptring-pin", os::OwnThread::Priority::background,
                            [this, wait = std::move(wait)] { pin_all(stop_.get_token(), wait); });
  } catch (const Error& error) {
    log_.warn("no thread to register host memory with CUDA: {}; copies wait for it", error.what());
  }
  const std::unique_lock lock(ranges_.mutex_);
  ranges_.ranges_.push_back(this);
}

CudaPinnedMemory::~CudaPinnedMemory() {
  {
    const std::unique_lock lock(ranges_.mutex_);
    std::erase(ranges_.ranges_, this);
  }
  stop_.request_stop();
  if (thread_.joinable()) thread_.join();
  // Whoever ends this may never have used CUDA: see CudaDeviceScope.
  os::run_in_own_thread("ckptring-unpin", [this] { unregister_all(); });
}

void CudaPinnedMemory::unregister_all() noexcept {
  const CudaDeviceScope scope(runtime_, device_);
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    // Written by a thread that was joined, or before a copy that has ended.
    if (pieces_[i].load(std::memory_order_relaxed) != Piece::registered) continue;
    try {
      check_cuda(runtime_, runtime_.host_unregister(piece(i).data()),
                 "unregister host memory from CUDA");
    } catch (const std::exception& error) {  // a broken context; it holds nothing any more
      if (!std::exchange(warned_, true)) log_.warn("{}", error.what());
    }
  }
}

std::span<std::byte> CudaPinnedMemory::piece(std::size_t index) const noexcept {
  const std::uint64_t begin = index * piece_bytes_;
  return memory_.subspan(static_cast<std::size_t>(begin),
                         static_cast<std::size_t>(std::min(piece_bytes_, memory_.size() - begin)));
}

CudaPinnedRanges::Run CudaPinnedMemory::run_at(const std::byte* at, std::uint64_t bytes) {
  const auto index =
      static_cast<std::size_t>(static_cast<std::uint64_t>(at - memory_.data()) / piece_bytes_);
  const std::span<std::byte> whole = piece(index);
  const auto left = static_cast<std::uint64_t>(whole.data() + whole.size() - at);
  return {std::min(bytes, left), ensure(index, /*populated=*/false)};
}

bool CudaPinnedMemory::ensure(std::size_t index, bool populated) noexcept {
  std::atomic<Piece>& state = pieces_[index];
  // Pairs with the store below: the driver knows the piece.
  if (const Piece known = state.load(std::memory_order_acquire); known != Piece::fresh) {
    return known == Piece::registered;
  }
  const std::scoped_lock lock(registering_);
  Piece now = state.load(std::memory_order_relaxed);  // ordered by the mutex
  if (now == Piece::fresh) {
    // The driver would populate them as well, and hold up every launch for ten times as long.
    if (!populated) (void)os::populate(piece(index));
    now = try_register(index);
    state.store(now, std::memory_order_release);  // pairs with the load above
  }
  return now == Piece::registered;
}

CudaPinnedMemory::Piece CudaPinnedMemory::try_register(std::size_t index) noexcept {
  const std::span<std::byte> bytes = piece(index);
  try {
    const std::string operation = "register host memory with CUDA";
    const CudaDeviceScope scope(runtime_, device_, operation);
    check_cuda(runtime_,
               runtime_.host_register(bytes.data(), bytes.size(), cudaHostRegisterPortable),
               operation);
    return Piece::registered;
  } catch (const std::exception& error) {
    if (!std::exchange(warned_, true)) {
      log_.warn("{}; copies between devices and this memory go through a small window",
                error.what());
    }
    return Piece::refused;
  }
}

void CudaPinnedMemory::pin_all(const std::stop_token& stop, const WaitPopulated& wait) {
  const std::uint64_t began = os::monotonic_ns();
  std::uint64_t pinned = 0;
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const std::uint64_t end = static_cast<std::uint64_t>(i) * piece_bytes_ + piece(i).size();
    if (wait) wait(stop, end);
    if (stop.stop_requested()) return;
    // Whoever was waited for may have given up. Where the pages are there, this takes little.
    (void)os::populate(piece(i));
    const std::uint64_t before = os::monotonic_ns();
    if (ensure(i, /*populated=*/true)) pinned += piece(i).size();
    if (i + 1 < pieces_.size()) pause(stop, kPauseFactor * (os::monotonic_ns() - before));
  }
  log_.info("{} of {} MiB of host memory registered with CUDA, after {:.2f} s", pinned >> 20,
            memory_.size() >> 20, os::seconds_since(began));
}

}  // namespace ckptring::stage
