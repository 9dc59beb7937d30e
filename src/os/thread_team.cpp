#include "os/thread_team.h"

#include <utility>

namespace ckptring::os {

ThreadTeam::ThreadTeam(unsigned count, const char* name, OwnThread::Priority priority) {
  threads_.reserve(count - 1);
  try {
    for (unsigned i = 1; i < count; ++i) {
      threads_.emplace_back(name, priority, [this] { serve(); });
    }
  } catch (...) {  // no more threads allowed; those that run must not be left behind
    end();
    throw;
  }
}

ThreadTeam::~ThreadTeam() { end(); }

void ThreadTeam::end() noexcept {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  threads_.clear();
}

void ThreadTeam::run(const std::function<void()>& work) {
  {
    const std::scoped_lock lock(mutex_);
    work_ = &work;
    running_ = static_cast<unsigned>(threads_.size());
    ++round_;
  }
  changed_.notify_all();
  do_part(work);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return running_ == 0; });
  work_ = nullptr;
  if (const std::exception_ptr failure = std::exchange(failure_, nullptr)) {
    lock.unlock();
    std::rethrow_exception(failure);
  }
}

/// Out of memory, as a rule. The one who asked for the work is told.
void ThreadTeam::do_part(const std::function<void()>& work) noexcept {
  try {
    work();
  } catch (...) {
    const std::scoped_lock lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadTeam::serve() {
  std::uint64_t served = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || round_ != served; });
    if (stop_) return;
    served = round_;
    const std::function<void()>& work = *work_;
    lock.unlock();
    do_part(work);
    lock.lock();
    if (--running_ == 0) changed_.notify_all();
  }
}

}  // namespace ckptring::os
