#include "handoff/sides.h"

#include "support/shared_object.h"

#include "os/clock.h"
#include "os/pidfd.h"
#include "os/poll.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace bench {
namespace {

namespace os = ckptring::os;

constexpr double kStuckSecs = 120;
constexpr std::size_t kErrorChars = 256;
constexpr std::array<const char*, 2> kNames{"first", "second"};

[[noreturn]] void fail(const std::string& what, int error) {
  throw std::system_error(error, std::generic_category(), what);
}

/// What the sides leave for the process that started them.
struct Results {
  Meeting meeting;
  std::array<SideTimes, 2> times{};
  std::array<std::array<char, kErrorChars>, 2> errors{};
};

/// The kernel's own sum for a thread, exact where getrusage is late by up to a tick.
double thread_cpu_seconds() {
  ::timespec time{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0) fail("read the thread's clock", errno);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

std::uint64_t thread_sleeps() {
  ::rusage usage{};
  if (::getrusage(RUSAGE_THREAD, &usage) != 0) fail("getrusage", errno);
  return static_cast<std::uint64_t>(usage.ru_nvcsw);
}

void pin_to(int processor) {
  ::cpu_set_t set{};
  CPU_SET(processor, &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) {
    fail("move to processor " + std::to_string(processor), errno);
  }
}

/// Which core of which socket a processor belongs to; processors that cannot be looked up are
/// cores of their own.
std::pair<int, int> core_of(int processor) {
  const std::string folder =
      "/sys/devices/system/cpu/cpu" + std::to_string(processor) + "/topology/";
  int socket = 0;
  int core = 0;
  if ((std::ifstream(folder + "physical_package_id") >> socket) &&
      (std::ifstream(folder + "core_id") >> core)) {
    return {socket, core};
  }
  return {-1, processor};
}

/// Does not return unless the side succeeded.
void run_side(Results& results, std::size_t index, const Side& side) noexcept {
  try {
    pin_to(processors_of_sides()[index]);
    results.times[index] = side(results.meeting);
  } catch (const std::exception& error) {
    (void)std::snprintf(results.errors[index].data(), kErrorChars, "%s", error.what());
    ::_exit(1);
  }
}

/// A forked process that does not outlive this object.
class Child {
 public:
  /// `work` is all that it does.
  explicit Child(const std::function<void()>& work) {
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) fail("fork", errno);
    if (pid_ == 0) {
      if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(1);
      work();
      ::_exit(0);
    }
    try {
      pidfd_ = os::open_pidfd(pid_);
    } catch (...) {
      end();
      throw;
    }
  }
  ~Child() {
    if (pid_ > 0) end();
  }
  Child(Child&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), pidfd_(std::move(other.pidfd_)) {}
  Child& operator=(Child&&) = delete;

  /// Readable once it has ended.
  [[nodiscard]] int pidfd() const noexcept { return pid_ > 0 ? pidfd_.get() : -1; }
  /// Call once it has ended.
  os::ExitStatus reap() noexcept {
    pid_ = 0;
    return os::reap(pidfd_.get());
  }

 private:
  void end() const noexcept {
    (void)::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  pid_t pid_ = 0;
  os::UniqueFd pidfd_;
};

void check(const os::ExitStatus& status, const Results& results) {
  if (status.kind == os::ExitStatus::Kind::exited && status.value == 0) return;
  for (std::size_t i = 0; i < results.errors.size(); ++i) {
    if (results.errors[i][0] != '\0') {
      throw std::runtime_error(std::string("the ") + kNames[i] +
                               " side failed: " + results.errors[i].data());
    }
  }
  throw std::runtime_error("a side " + status.in_words());
}

void wait_for(std::vector<Child>& children, const Results& results) {
  const os::Deadline deadline = os::Deadline::after(kStuckSecs);
  for (std::size_t running = children.size(); running > 0;) {
    std::vector<os::Waitable> ends;
    ends.reserve(children.size());
    for (const Child& child : children) ends.push_back({child.pidfd()});
    if (!os::wait_any(ends, deadline)) throw std::runtime_error("the sides do not come to an end");
    for (std::size_t i = 0; i < children.size(); ++i) {
      if (!ends[i].ready) continue;
      check(children[i].reap(), results);
      --running;
    }
  }
}

}  // namespace

SideClock::SideClock()
    : began_ns_(os::monotonic_ns()), sleeps_(thread_sleeps()), cpu_seconds_(thread_cpu_seconds()) {}

SideTimes SideClock::times() const {
  const double cpu_seconds = thread_cpu_seconds() - cpu_seconds_;
  return {began_ns_, os::monotonic_ns(), cpu_seconds, thread_sleeps() - sleeps_};
}

Meeting::Meeting() {
  ::pthread_barrierattr_t attributes;
  int error = ::pthread_barrierattr_init(&attributes);
  if (error == 0) {
    error = ::pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0) error = ::pthread_barrier_init(&barrier_, &attributes, 2);
    (void)::pthread_barrierattr_destroy(&attributes);
  }
  if (error != 0) fail("make a barrier", error);
}

void Meeting::wait() noexcept { (void)::pthread_barrier_wait(&barrier_); }

double BothTimes::seconds() const {
  return static_cast<double>(std::max(first.ended_ns, second.ended_ns) -
                             std::min(first.began_ns, second.began_ns)) *
         1e-9;
}

std::array<int, 2> processors_of_sides() {
  static const std::array<int, 2> chosen = [] {
    ::cpu_set_t set{};
    if (::sched_getaffinity(0, sizeof set, &set) != 0) fail("ask for the processors", errno);
    std::vector<int> usable;
    for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
      if (CPU_ISSET(processor, &set)) usable.push_back(processor);
    }
    if (usable.size() < 2) throw std::runtime_error("two sides need two processors");
    const auto other_core = std::find_if(usable.begin() + 1, usable.end(), [&](int processor) {
      return core_of(processor) != core_of(usable[0]);
    });
    return std::array{usable[0], other_core != usable.end() ? *other_core : usable[1]};
  }();
  return chosen;
}

BothTimes run_apart(Apart apart, const std::function<void()>& open, const Side& first,
                    const Side& second) {
  (void)processors_of_sides();  // chosen here, before anything is pinned
  const SharedObject<Results> results;
  const auto opened = [&](std::size_t index) {
    try {
      open();
    } catch (const std::exception& error) {
      (void)std::snprintf(results->errors[index].data(), kErrorChars, "%s", error.what());
      ::_exit(1);
    }
  };
  std::vector<Child> children;
  if (apart == Apart::processes) {
    for (std::size_t i = 0; i < 2; ++i) {
      children.emplace_back([&] {
        opened(i);
        run_side(*results, i, i == 0 ? first : second);
      });
    }
  } else {
    children.emplace_back([&] {
      opened(0);
      std::thread other([&] { run_side(*results, 1, second); });
      run_side(*results, 0, first);
      other.join();
    });
  }
  wait_for(children, *results);
  return {results->times[0], results->times[1]};
}

}  // namespace bench
