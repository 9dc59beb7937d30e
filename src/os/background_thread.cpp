#include "os/background_thread.h"

#include "os/own_thread.h"

#include <pthread.h>
#include <sched.h>

namespace ckptring::os {

void become_background_thread(const char* name) noexcept {
  become_own_thread(name);
  // A trainer that has chosen another policy for its threads keeps it.
  int policy = 0;
  ::sched_param priority{};
  if (::pthread_getschedparam(::pthread_self(), &policy, &priority) != 0) return;
  if (policy == SCHED_OTHER) {
    (void)::pthread_setschedparam(::pthread_self(), SCHED_BATCH, &priority);
  }
}

}  // namespace ckptring::os
