#include "lifetime/orphan.h"

#include "lifetime/watching.h"
#include "support/stopwatch.h"

#include "os/pidfd.h"
#include "os/poll.h"
#include "os/unique_fd.h"
#include "save/async_save.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <system_error>

namespace bench {
namespace {

namespace os = ckptring::os;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// The forked trainer: saves, says on `tell` which process drains, and waits to be killed.
[[noreturn]] void train(const ckptring::CheckpointerConfig& config, const std::string& directory,
                        const NoiseState& state, int tell) noexcept {
  try {
    ckptring::save::AsyncSave async(config, {});
    async.ready();
    async.wait_prefaulted();
    const ckptring::SaveHandle save = async.submit(state.job(directory + "/orphaned"));
    save.staged.wait();
    const int helper = async.process_id();
    if (::write(tell, &helper, sizeof helper) != sizeof helper) ::_exit(1);
    for (;;) ::pause();
  } catch (...) {
    ::_exit(1);
  }
}

}  // namespace

void adopt_orphans() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) fail("become the reaper of orphans");
}

OrphanTimes measure_orphan(const ckptring::CheckpointerConfig& config, const std::string& directory,
                           const NoiseState& state, std::uint64_t state_bytes) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail("make a pipe");
  const os::UniqueFd from_trainer(ends[0]);
  os::UniqueFd to_parent(ends[1]);
  const ::pid_t trainer = ::fork();
  if (trainer < 0) fail("fork");
  if (trainer == 0) train(config, directory, state, to_parent.get());
  to_parent.reset();
  int helper = 0;
  if (::read(from_trainer.get(), &helper, sizeof helper) != sizeof helper) {
    throw std::runtime_error("the trainer did not get so far");
  }
  const os::UniqueFd pidfd = os::open_pidfd(helper);
  OrphanTimes times{};
  times.left_bytes = static_cast<double>(state_bytes - std::min(written_by(helper), state_bytes));
  const Stopwatch watch;
  if (::kill(trainer, SIGKILL) != 0 || ::waitpid(trainer, nullptr, 0) != trainer) {
    fail("kill the trainer");
  }
  const std::string file = directory + "/orphaned/checkpoint_0.pt";
  times.committed =
      seconds_until(watch, "the commit", [&] { return ::access(file.c_str(), F_OK) == 0; });
  std::array<os::Waitable, 1> gone{os::Waitable{pidfd.get()}};
  if (!os::wait_any(gone, os::Deadline::after(kStuckSecs))) {
    throw std::runtime_error("waited for the orphan to end");
  }
  times.ended = watch.seconds();
  (void)os::reap(pidfd.get());  // ours since its parent died
  return times;
}

}  // namespace bench
