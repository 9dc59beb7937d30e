#include "os/own_thread.h"

#include "base/log.h"
#include "base/system_words.h"
#include "os/affinity.h"
#include "os/signals_blocked.h"

#include <ckptring/error.h>
#include <pthread.h>
#include <sched.h>

#include <exception>
#include <system_error>
#include <utility>

namespace ckptring::os {
namespace {

thread_local bool own = false;
thread_local bool leaves_others_their_turn = false;

/// A trainer that has chosen another policy for its threads keeps it.
/// @return whether it is another one now
bool change_policy(int from, int to) noexcept {
  int policy = 0;
  ::sched_param priority{};
  return ::pthread_getschedparam(::pthread_self(), &policy, &priority) == 0 && policy == from &&
         ::pthread_setschedparam(::pthread_self(), to, &priority) == 0;
}

void log_failure(const char* name, const char* why) noexcept {
  try {
    base::write_log_line(LogLevel::error, fmt::format("in the thread {}: {}", name, why));
  } catch (...) {
    base::write_log_line(LogLevel::error, "a thread has failed for want of memory");
  }
}

}  // namespace

OwnThread::OwnThread(const char* name, Priority priority, std::function<void()> work) {
  // The log's level comes from the environment when it is first asked for. Not in there: another
  // thread may change the environment meanwhile.
  (void)log_level();
  const Processors processors = Processors::for_own_thread();
  const SignalsBlocked blocked;
  try {
    // What this thread has done to itself is not handed on.
    const bool made_in_background = leaves_others_their_turn;
    thread_ = std::thread([name, priority, processors, made_in_background, work = std::move(work)] {
      (void)::pthread_setname_np(::pthread_self(), name);  // without it nothing is lost
      own = true;
      if (processors != Processors::of_this_thread()) processors.use();
      if (made_in_background) (void)change_policy(SCHED_BATCH, SCHED_OTHER);
      if (priority == Priority::background) {
        leaves_others_their_turn = change_policy(SCHED_OTHER, SCHED_BATCH);
      }
      run_and_log_failure(name, work);
    });
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::out_of_memory, "start the thread", name,
                "the system allows no more threads (RLIMIT_NPROC, pids.max or memory): " +
                    base::words_of_errno(error.code().value()),
                error.code().value());
  }
}

OwnThread& OwnThread::operator=(OwnThread&& other) noexcept {
  if (thread_.joinable()) thread_.join();
  thread_ = std::move(other.thread_);
  return *this;
}

OwnThread::~OwnThread() {
  if (thread_.joinable()) thread_.join();
}

void run_and_log_failure(const char* name, const std::function<void()>& work) noexcept {
  try {
    work();
  } catch (const std::exception& error) {
    log_failure(name, error.what());
  } catch (...) {
    log_failure(name, "something was thrown that is no exception");
  }
}

bool is_own_thread() noexcept { return own; }

void lend_this_thread() noexcept { own = false; }

void run_in_own_thread(const char* name, const std::function<void()>& work) noexcept {
  try {
    OwnThread(name, OwnThread::Priority::foreground, work).join();
  } catch (const std::exception&) {
    work();
  }
}

}  // namespace ckptring::os
