#include "lifetime/start.h"

#include "lifetime/watching.h"
#include "support/stopwatch.h"

#include "os/pidfd.h"
#include "os/poll.h"
#include "os/spawn.h"
#include "os/unique_fd.h"
#include "save/async_save.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace bench {
namespace {

namespace os = ckptring::os;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// Without a trainer's arguments the helper says so and ends.
double measure_spawn(const std::string& executable) {
  const os::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) fail("open /dev/null");
  const os::SpawnRequest request{.executable = executable,
                                 .arguments = {executable},
                                 .environment = {},
                                 .descriptors = {null.get(), null.get(), null.get()}};
  const Stopwatch watch;
  const os::Spawned spawned = os::spawn(request);
  const double seconds = watch.seconds();
  std::array<os::Waitable, 1> ended{os::Waitable{spawned.pidfd.get()}};
  if (!os::wait_any(ended, os::Deadline::after(kStuckSecs))) {
    throw std::runtime_error("waited for " + executable + " to end");
  }
  (void)os::reap(spawned.pidfd.get());
  return seconds;
}

}  // namespace

StartTimes measure_start(const std::string& executable, const std::string& directory,
                         const NoiseState& state) {
  StartTimes times{};
  times.spawned = measure_spawn(executable);
  ckptring::CheckpointerConfig config;
  config.process_config.executable = executable;
  const Stopwatch making;
  ckptring::save::AsyncSave async(config, {});
  times.made = making.seconds();
  async.ready();
  times.ready = making.seconds();
  const ::pid_t before = async.process_id();
  ckptring::save::SaveJob job = state.job(directory + "/first");
  const Stopwatch saving;
  const ckptring::SaveHandle save = async.submit(std::move(job));
  (void)seconds_until(saving, "the first save's process", [&] {
    const ::pid_t now = async.process_id();
    return now != 0 && now != before;
  });
  async.ready();
  times.first_ready = saving.seconds();
  (void)save.written.get();
  times.first_durable = saving.seconds();
  async.close();
  return times;
}

double measure_fork() {
  const Stopwatch watch;
  const ::pid_t child = ::fork();
  if (child < 0) fail("fork");
  if (child == 0) ::_exit(0);
  const double seconds = watch.seconds();
  while (::waitpid(child, nullptr, 0) != child) {
    if (errno != EINTR) fail("wait for a fork");
  }
  return seconds;
}

}  // namespace bench
