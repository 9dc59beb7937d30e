#include "stage/cuda_copy_engine.h"

#include "stage/cuda_call.h"
#include "stage/stream_copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

namespace ckptring::stage {
namespace {

/// Between one wait that is refused and the next.
constexpr std::chrono::milliseconds kPause{10};

/// Errors that a context may answer in which everything goes on: a graph is being captured, or
/// there is no memory.
bool may_pass(cudaError_t error) {
  return (error >= cudaErrorStreamCaptureUnsupported &&
          error <= cudaErrorStreamCaptureWrongThread) ||
         error == cudaErrorMemoryAllocation;
}

const char* words_of(CudaCopyEngine::Direction direction) {
  switch (direction) {
    case CudaCopyEngine::Direction::to_host:
      return "from";
    case CudaCopyEngine::Direction::to_device:
      return "to";
    case CudaCopyEngine::Direction::within:
      break;
  }
  return "within";
}

}  // namespace

CudaCopyEngine::CudaCopyEngine(const CudaRuntime& runtime, CudaEvents& events,
                               const CudaPinnedRanges& ranges, int device, Direction direction)
    : runtime_(runtime),
      events_(events),
      ranges_(ranges),
      device_(device),
      direction_(direction),
      window_(runtime, device) {
  {
    const std::string operation = fmt::format("make a stream of device {}", device_);
    const CudaDeviceScope scope(runtime_, device_, operation);
    // Not held up by, and not holding up, whatever runs on the default stream.
    check_cuda(runtime_, runtime_.stream_create_with_flags(&stream_, cudaStreamNonBlocking),
               operation);
  }
  name_ = fmt::format("copy {} device {} (stream {})", words_of(direction_), device_,
                      fmt::ptr(static_cast<const void*>(stream_)));
  try {
    thread_ = os::OwnThread("ckptring-cuda", os::OwnThread::Priority::background,
                            [this] { complete_all(); });
  } catch (const Error& error) {
    destroy_stream();
    throw Error(ErrorCode::device_failed, "start a thread to " + name_, "", error.what());
  }
}

CudaCopyEngine::~CudaCopyEngine() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  destroy_stream();
}

void CudaCopyEngine::destroy_stream() noexcept {
  const CudaDeviceScope scope(runtime_, device_);
  allow_failure(runtime_, runtime_.stream_destroy(stream_));  // a broken context holds nothing
}

cudaMemcpyKind CudaCopyEngine::kind() const noexcept {
  switch (direction_) {
    case Direction::to_host:
      return cudaMemcpyDeviceToHost;
    case Direction::to_device:
      return cudaMemcpyHostToDevice;
    case Direction::within:
      break;
  }
  return cudaMemcpyDeviceToDevice;
}

void CudaCopyEngine::copy(std::span<const Copy> copies, CopiesEnded ended) {
  const std::scoped_lock lock(enqueuing_);
  std::list<Batch> last(1);
  last.front().ended = std::move(ended);
  try {
    const CudaDeviceScope scope(runtime_, device_, name_);
    for (const Copy& copy : copies) enqueue(copy);
    submit_direct();
    last.front().event = record_event();
  } catch (...) {
    // A part of it may be under way: the completion thread sees to its end.
    last.front().failure = std::current_exception();
  }
  to_.clear();
  from_.clear();
  sizes_.clear();
  hand_over(std::move(last));
}

void CudaCopyEngine::enqueue(Copy copy) {
  if (direction_ == Direction::within) {
    enqueue_direct(copy);
    return;
  }
  while (copy.size > 0) {
    const std::byte* const host = direction_ == Direction::to_host ? copy.to : copy.from;
    const CudaPinnedRanges::Run run = ranges_.run_at(host, copy.size);
    Copy part = copy;
    part.size =
        run.pinned ? run.bytes : std::min<std::uint64_t>(run.bytes, CudaWindow::kBufferBytes);
    if (run.pinned) {
      enqueue_direct(part);
    } else {
      enqueue_through_window(part);
    }
    copy.to += part.size;
    copy.from += part.size;
    copy.size -= part.size;
  }
}

void CudaCopyEngine::enqueue_direct(const Copy& copy) {
  to_.push_back(copy.to);
  from_.push_back(copy.from);
  sizes_.push_back(static_cast<std::size_t>(copy.size));
}

void CudaCopyEngine::enqueue_through_window(const Copy& copy) {
  std::list<Batch> handed_over(1);
  Batch& batch = handed_over.front();
  batch.buffer = window_.take(name_);
  batch.size = static_cast<std::size_t>(copy.size);
  try {
    if (direction_ == Direction::to_host) {
      batch.to = copy.to;
      check_cuda(runtime_,
                 runtime_.memcpy_async(batch.buffer, copy.from, batch.size, kind(), stream_),
                 name_);
    } else {
      std::memcpy(batch.buffer, copy.from, batch.size);
      check_cuda(runtime_,
                 runtime_.memcpy_async(copy.to, batch.buffer, batch.size, kind(), stream_), name_);
    }
    batch.event = record_event();
  } catch (...) {
    batch.failure = std::current_exception();
    hand_over(std::move(handed_over));
    throw;
  }
  hand_over(std::move(handed_over));
}

/// Many small tensors are as many launches, unless they go in one call.
void CudaCopyEngine::submit_direct() {
  if (to_.size() > 1 && !batches_refused_) {
    cudaMemcpyAttributes attributes{};
    attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    std::size_t first = 0;
    const cudaError_t result = runtime_.memcpy_batch_async(
        to_.data(), from_.data(), sizes_.data(), to_.size(), &attributes, &first, 1, stream_);
    if (result != cudaErrorNotSupported && result != cudaErrorCallRequiresNewerDriver) {
      check_cuda(runtime_, result, name_);
      return;
    }
    allow_failure(runtime_, result);
    batches_refused_ = true;
  }
  for (std::size_t i = 0; i < to_.size(); ++i) {
    check_cuda(runtime_, runtime_.memcpy_async(to_[i], from_[i], sizes_[i], kind(), stream_),
               name_);
  }
}

CudaEvent CudaCopyEngine::record_event() { return events_.record(stream_, name_); }

void CudaCopyEngine::hand_over(std::list<Batch> batch) noexcept {
  {
    const std::scoped_lock lock(mutex_);
    batches_.splice(batches_.end(), batch);
  }
  changed_.notify_all();
}

void CudaCopyEngine::copy_after(const StreamPoint& point) {
  const auto& made_here = static_cast<const CudaStreamPoint&>(point);
  const std::scoped_lock lock(enqueuing_);
  const CudaDeviceScope scope(runtime_, device_, name_);
  check_cuda(runtime_, runtime_.stream_wait_event(stream_, made_here.event(), 0), name_);
}

std::shared_ptr<StreamPoint> CudaCopyEngine::fence(void* stream) {
  const std::string operation =
      fmt::format("let stream {} of device {} wait for copies", fmt::ptr(stream), device_);
  const std::scoped_lock lock(enqueuing_);
  const CudaDeviceScope scope(runtime_, device_, operation);
  refuse_graph_capture(runtime_, static_cast<cudaStream_t>(stream), operation);
  CudaEvent event = record_event();
  check_cuda(runtime_,
             runtime_.stream_wait_event(static_cast<cudaStream_t>(stream), event.get(), 0),
             operation);
  return std::make_shared<CudaStreamPoint>(std::move(event));
}

bool CudaCopyEngine::is_copying() const {
  const std::scoped_lock lock(mutex_);
  return completing_ || !batches_.empty();
}

void CudaCopyEngine::complete_all() {
  const CudaDeviceScope scope(runtime_, device_);
  std::exception_ptr failure;  // of the caller at hand
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !batches_.empty(); });
    if (batches_.empty()) return;
    std::list<Batch> batch;
    batch.splice(batch.end(), batches_, batches_.begin());
    completing_ = true;
    lock.unlock();
    complete(batch.front(), failure);
    batch.clear();
    lock.lock();
    completing_ = false;
  }
}

void CudaCopyEngine::complete(Batch& batch, std::exception_ptr& failure) noexcept {
  if (const std::exception_ptr now = wait_for(batch); now && !failure) failure = now;
  if (batch.buffer != nullptr) {
    if (batch.to != nullptr && !failure) {
      stream_copy(batch.to, batch.buffer, batch.size);
      order_streamed();
    }
    window_.give_back(batch.buffer);
  }
  if (!batch.ended) return;
  batch.event = {};  // whoever is told may end everything
  batch.ended(std::exchange(failure, nullptr));
}

/// Returns when the batch's copies have ended, and why they failed, if they did.
std::exception_ptr CudaCopyEngine::wait_for(const Batch& batch) const noexcept {
  std::exception_ptr failure = batch.failure;
  if (!failure) {
    try {
      check_cuda(runtime_, runtime_.event_synchronize(batch.event.get()), name_);
      return nullptr;
    } catch (...) {  // that, or no memory to say it
      failure = std::current_exception();
    }
  }
  wait_for_stream();  // whatever went wrong, copies may still be under way
  return failure;
}

/// As long as it is refused, the copies count as under way: whoever is told that they have ended
/// lets go of what they write to.
void CudaCopyEngine::wait_for_stream() const noexcept {
  for (;;) {
    const cudaError_t result = runtime_.stream_synchronize(stream_);
    allow_failure(runtime_, result);
    if (result == cudaSuccess || is_context_lost(result)) return;
    std::this_thread::sleep_for(kPause);
  }
}

/// Whether nothing moves any more on the stream, a wait for which was refused. In a broken context
/// every call fails; one that was destroyed took the stream with it.
bool CudaCopyEngine::is_context_lost(cudaError_t refusal) const noexcept {
  if (may_pass(refusal)) return false;
  if (refusal == cudaErrorContextIsDestroyed || refusal == cudaErrorInvalidResourceHandle ||
      refusal == cudaErrorCudartUnloading) {
    return true;
  }
  cudaEvent_t event = nullptr;
  cudaError_t another = runtime_.set_device(device_);  // the thread may have failed to
  if (another == cudaSuccess) {
    another = runtime_.event_create_with_flags(&event, cudaEventDisableTiming);
  }
  allow_failure(runtime_, another);
  if (another != cudaSuccess) return !may_pass(another);
  allow_failure(runtime_, runtime_.event_destroy(event));
  return false;
}

}  // namespace ckptring::stage
