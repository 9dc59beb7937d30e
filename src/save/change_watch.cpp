#include "save/change_watch.h"

#include <ckptring/error.h>

namespace ckptring::save {

void ChangeWatch::at_fence(int device) {
  const std::scoped_lock lock(mutex_);
  if (job_ == nullptr || !job_->check_unchanged) return;
  // A second fence, for another stream, finds what the first one has allowed.
  if (!fenced_.insert(device).second) return;
  try {
    job_->check_unchanged(device, job_->captured);
  } catch (...) {
    found_ = std::current_exception();
  }
}

void ChangeWatch::before_sealing() {
  // Held meanwhile: who fences a device now changes its tensors only once they have been looked at.
  const std::scoped_lock lock(mutex_);
  if (found_) std::rethrow_exception(found_);
  if (job_ == nullptr || !job_->check_unchanged) return;
  job_->check_unchanged(stage::kHost, job_->captured);
  for (const DeviceState& state : job_->devices) {
    if (!fenced_.contains(state.device)) job_->check_unchanged(state.device, job_->captured);
  }
}

void ChangeWatch::end() {
  const std::scoped_lock lock(mutex_);
  job_ = nullptr;
}

}  // namespace ckptring::save
