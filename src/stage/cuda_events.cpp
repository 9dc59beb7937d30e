#include "stage/cuda_events.h"

#include "stage/cuda_call.h"

namespace ckptring::stage {

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) owner_->give_back(event_);
}

CudaEvents::~CudaEvents() {
  if (unused_.empty()) return;
  const CudaDeviceScope scope(runtime_, device_);
  // What fails here belongs to a broken context, which holds nothing any more.
  for (auto* const event : unused_) allow_failure(runtime_, runtime_.event_destroy(event));
}

CudaEvent CudaEvents::take(const std::string& operation) {
  {
    const std::scoped_lock lock(mutex_);
    if (!unused_.empty()) {
      auto* const event = unused_.back();
      unused_.pop_back();
      return {*this, event};
    }
    if (unused_.capacity() < ++made_) unused_.reserve(2 * made_);
  }
  cudaEvent_t event = nullptr;
  check_cuda(
      runtime_,
      runtime_.event_create_with_flags(&event, cudaEventBlockingSync | cudaEventDisableTiming),
      operation);
  return {*this, event};
}

CudaEvent CudaEvents::record(cudaStream_t stream, const std::string& operation) {
  const CudaDeviceScope scope(runtime_, device_, operation);
  CudaEvent event = take(operation);
  check_cuda(runtime_, runtime_.event_record(event.get(), stream), operation);
  return event;
}

void CudaEvents::give_back(cudaEvent_t event) noexcept {
  const std::scoped_lock lock(mutex_);
  unused_.push_back(event);
}

}  // namespace ckptring::stage
