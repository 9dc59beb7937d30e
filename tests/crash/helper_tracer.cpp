#include "crash/helper_tracer.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <stdexcept>
#include <system_error>
#include <utility>

#ifndef __x86_64__
#error "the tracer knows the registers of x86-64 only"
#endif

namespace ckptring::test {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kPatience{30};
constexpr microseconds kNap{100};
constexpr int kSyscallStop = SIGTRAP | 0x80;

void* as_pointer(std::uint64_t value) { return reinterpret_cast<void*>(value); }

void set_register(pid_t thread, std::size_t offset, std::int64_t value) {
  (void)::ptrace(PTRACE_POKEUSER, thread, as_pointer(offset),
                 as_pointer(static_cast<std::uint64_t>(value)));
}

}  // namespace

std::string TracedCall::text(unsigned argument) const {
  constexpr std::uint64_t kPage = 4096;
  std::string text;
  std::uint64_t at = arguments[argument];
  while (at != 0) {
    // Never across a page: the next one may not exist.
    std::array<char, kPage> chunk{};
    const ::iovec here{chunk.data(), static_cast<std::size_t>(kPage - at % kPage)};
    const ::iovec there{as_pointer(at), here.iov_len};
    const ssize_t got = ::process_vm_readv(thread, &here, 1, &there, 1, 0);
    if (got <= 0) return {};
    const auto end = std::find(chunk.begin(), chunk.begin() + got, '\0');
    text.append(chunk.begin(), end);
    if (end != chunk.begin() + got) break;
    at += static_cast<std::uint64_t>(got);
  }
  return text;
}

std::string refusal_of_ptrace() {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    for (;;) ::pause();
  }
  std::string refusal;
  struct __ptrace_syscall_info info {};
  if (::ptrace(PTRACE_SEIZE, child, nullptr, nullptr) != 0) {
    refusal = "this host refuses ptrace: " + std::generic_category().message(errno);
  } else if (::ptrace(PTRACE_INTERRUPT, child, nullptr, nullptr) != 0 ||
             ::waitpid(child, nullptr, __WALL) != child ||
             ::ptrace(PTRACE_GET_SYSCALL_INFO, child, as_pointer(sizeof info), &info) <= 0) {
    refusal = "this host's ptrace does not tell of system calls (Linux 5.3): " +
              std::generic_category().message(errno);
  }
  (void)::kill(child, SIGKILL);
  (void)::waitpid(child, nullptr, __WALL);
  return refusal;
}

HelperTracer::HelperTracer() : thread_([this] { follow(); }) {}

HelperTracer::~HelperTracer() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
    if (helper_ && helper_->held) (void)::kill(helper_->process, SIGKILL);
  }
  changed_.notify_all();
  thread_.join();
}

pid_t HelperTracer::close_gate() {
  const std::scoped_lock lock(mutex_);
  gate_open_ = false;
  scripts_.clear();
  return passed_;
}

void HelperTracer::wait_for_helper() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [this] { return at_gate_ || !problem_.empty(); });
    if (!at_gate_ && problem_.empty()) throw std::runtime_error("no helper came to the gate");
  }
  check();
}

void HelperTracer::release(std::deque<Script> scripts) {
  {
    const std::scoped_lock lock(mutex_);
    scripts_ = std::move(scripts);
    gate_open_ = true;
  }
  changed_.notify_all();
}

void HelperTracer::check() const {
  const std::scoped_lock lock(mutex_);
  if (!problem_.empty()) throw std::runtime_error(problem_);
}

void HelperTracer::note_problem(std::string problem) {
  {
    const std::scoped_lock lock(mutex_);
    if (problem_.empty()) problem_ = std::move(problem);
  }
  changed_.notify_all();
}

void HelperTracer::follow() {
  for (;;) {
    ::siginfo_t event{};
    // Only looked at: a helper's end belongs to the supervisor under test.
    if (::waitid(P_ALL, 0, &event, WEXITED | WSTOPPED | WNOWAIT | __WALL) != 0) {
      if (errno == EINTR) continue;
      std::unique_lock lock(mutex_);
      if (stopping_) return;
      (void)changed_.wait_for(lock, kNap);
      continue;
    }
    switch (event.si_code) {
      case CLD_STOPPED:
        on_plain_stop(event.si_pid);
        break;
      case CLD_TRAPPED:
        on_trap(event.si_pid, event.si_status);
        break;
      default:
        on_end(event.si_pid);
    }
  }
}

void HelperTracer::on_end(pid_t id) {
  ::siginfo_t event{};
  // While a helper is followed no other one starts, so what never stood at the gate is one of its
  // threads, and those report to their tracer alone.
  if (helper_ && !seen_.contains(id)) {
    helper_->threads.erase(id);
    (void)::waitid(P_PID, static_cast<id_t>(id), &event, WEXITED | __WALL);
    return;
  }
  if (helper_ && id == helper_->process) {
    const std::scoped_lock lock(mutex_);
    helper_.reset();
  }
  seen_.erase(id);
  const auto deadline = steady_clock::now() + kPatience;
  while (::waitid(P_PID, static_cast<id_t>(id), &event, WEXITED | WNOHANG | WNOWAIT | __WALL) ==
             0 &&
         event.si_pid == id) {
    if (steady_clock::now() > deadline) {
      note_problem("the dead process " + std::to_string(id) + " was never collected");
      (void)::waitid(P_PID, static_cast<id_t>(id), &event, WEXITED | __WALL);
      return;
    }
    std::this_thread::sleep_for(kNap);
    event = {};
  }
}

/// Whether a child is dead, collected or not.
bool HelperTracer::has_ended(pid_t process) {
  ::siginfo_t event{};
  return ::waitid(P_PID, static_cast<id_t>(process), &event,
                  WEXITED | WNOHANG | WNOWAIT | __WALL) != 0 ||
         event.si_pid == process;
}

void HelperTracer::on_plain_stop(pid_t process) {
  ::siginfo_t event{};
  (void)::waitid(P_PID, static_cast<id_t>(process), &event, WSTOPPED | WNOHANG | __WALL);
  if (!seen_.insert(process).second) return;  // a stop that a test asked for

  Script script;
  {
    std::unique_lock lock(mutex_);
    at_gate_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return gate_open_ || stopping_; });
    at_gate_ = false;
    // To the supervisor it is a stopped process, whose patience may be short. The scripts are for
    // its successors.
    if (has_ended(process)) return;
    passed_ = process;
    if (!scripts_.empty()) {
      script = std::move(scripts_.front());
      scripts_.pop_front();
    }
  }
  if (script) {
    const std::uint64_t options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE;
    if (::ptrace(PTRACE_SEIZE, process, nullptr, as_pointer(options)) != 0) {
      const int error = errno;
      if (has_ended(process)) {
        const std::scoped_lock lock(mutex_);
        scripts_.push_front(std::move(script));
        return;
      }
      note_problem("ptrace is refused here: " + std::generic_category().message(error));
    } else {
      const std::scoped_lock lock(mutex_);
      helper_ = Helper{process, std::move(script), false, false, 0, {}};
      helper_->threads[process];
    }
  }
  (void)::kill(process, SIGCONT);
}

void HelperTracer::on_trap(pid_t thread, int status) {
  const int event = status >> 8;
  if (!helper_ || event == 0) {
    if (helper_ && status == kSyscallStop) {
      on_call(thread);
    } else {
      resume(thread, status);
    }
    return;
  }
  helper_->threads[thread];
  if (event == PTRACE_EVENT_EXEC) {
    helper_->executed = true;
    // The next stop is the end of the call itself.
    helper_->threads[thread] = {SYS_execve, {}, 0};
  }
  resume(thread, 0);
}

void HelperTracer::on_call(pid_t thread) {
  struct __ptrace_syscall_info info {};
  if (::ptrace(PTRACE_GET_SYSCALL_INFO, thread, as_pointer(sizeof info), &info) <= 0) return;
  Thread& state = helper_->threads[thread];
  const bool entering = info.op == PTRACE_SYSCALL_INFO_ENTRY;
  if (entering) {
    state.number = static_cast<long>(info.entry.nr);
    std::copy(std::begin(info.entry.args), std::end(info.entry.args), state.arguments.begin());
  } else if (state.injected_errno != 0) {
    info.exit.rval = -std::exchange(state.injected_errno, 0);
    set_register(thread, offsetof(struct ::user, regs.rax), info.exit.rval);
  }
  const TracedCall call{helper_->process,
                        thread,
                        helper_->stops++,
                        entering,
                        state.number,
                        state.arguments,
                        entering ? 0 : static_cast<std::int64_t>(info.exit.rval)};
  const Verdict verdict = helper_->script(call);
  switch (verdict.kind) {
    case Verdict::Kind::go_on:
      resume(thread, 0);
      break;
    case Verdict::Kind::kill:
      (void)::kill(helper_->process, SIGKILL);
      break;
    case Verdict::Kind::stop:
      (void)::kill(helper_->process, SIGSTOP);
      (void)::ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
      break;
    case Verdict::Kind::hold: {
      ::siginfo_t event{};
      (void)::waitid(P_PID, static_cast<id_t>(thread), &event, WSTOPPED | WNOHANG | __WALL);
      const std::scoped_lock lock(mutex_);
      helper_->held = true;
      if (stopping_) (void)::kill(helper_->process, SIGKILL);
      break;
    }
    case Verdict::Kind::fail:
      set_register(thread, offsetof(struct ::user, regs.orig_rax), -1);
      state.injected_errno = verdict.errno_value;
      resume(thread, 0);
      break;
  }
}

void HelperTracer::resume(pid_t thread, int signal) {
  const auto request = helper_ && helper_->executed ? PTRACE_SYSCALL : PTRACE_CONT;
  (void)::ptrace(request, thread, nullptr, as_pointer(static_cast<std::uint64_t>(signal)));
}

}  // namespace ckptring::test
