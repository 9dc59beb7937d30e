#include "os/own_thread.h"

#include <pthread.h>

#include <system_error>
#include <thread>

namespace ckptring::os {
namespace {

thread_local bool own = false;

}  // namespace

void become_own_thread(const char* name) noexcept {
  (void)::pthread_setname_np(::pthread_self(), name);  // without it nothing is lost
  own = true;
}

bool is_own_thread() noexcept { return own; }

void run_in_own_thread(const char* name, const std::function<void()>& work) noexcept {
  std::thread thread;
  try {
    thread = std::thread([&] {
      become_own_thread(name);
      work();
    });
  } catch (const std::system_error&) {
    work();
    return;
  }
  thread.join();
}

}  // namespace ckptring::os
