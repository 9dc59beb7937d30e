#include "os/thread_team.h"

#include "os/background_thread.h"
#include "os/own_thread.h"

namespace ckptring::os {

ThreadTeam::ThreadTeam(unsigned count, const char* name, Priority priority) {
  try {
    for (unsigned i = 1; i < count; ++i) {
      threads_.emplace_back([this, name, priority] {
        if (priority == Priority::background) {
          become_background_thread(name);
        } else {
          become_own_thread(name);
        }
        serve();
      });
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
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::run(const std::function<void()>& work) {
  {
    const std::scoped_lock lock(mutex_);
    work_ = &work;
    running_ = static_cast<unsigned>(threads_.size());
    ++round_;
  }
  changed_.notify_all();
  work();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return running_ == 0; });
  work_ = nullptr;
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
    work();
    lock.lock();
    if (--running_ == 0) changed_.notify_all();
  }
}

}  // namespace ckptring::os
