#include "lifetime/restart.h"

#include "lifetime/watching.h"
#include "support/stopwatch.h"

#include "save/async_save.h"

#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <system_error>

namespace bench {

RestartTimes measure_restart(const ckptring::CheckpointerConfig& config,
                             const std::string& directory, const NoiseState& state,
                             std::uint64_t kill_after) {
  RestartTimes times{};
  const std::uint64_t before = bytes_written_by_ended_children();
  std::uint64_t file_bytes = 0;
  {
    ckptring::save::AsyncSave async(config, {});
    async.ready();
    async.wait_prefaulted();
    const ckptring::SaveHandle save = async.submit(state.job(directory + "/save"));
    const ::pid_t victim = async.process_id();
    (void)seconds_until(Stopwatch(), "a write", [&] { return written_by(victim) >= kill_after; });
    const LockWatch lock(directory + "/save");
    const Stopwatch watch;
    if (::kill(victim, SIGKILL) != 0) {
      throw std::system_error(errno, std::generic_category(), "kill the checkpoint process");
    }
    double free = 0;
    const auto look_at_lock = [&] {
      if (free == 0 && lock.is_free()) free = watch.seconds();
    };
    ::pid_t successor = 0;
    times.started = seconds_until(watch, "a successor", [&] {
      look_at_lock();
      successor = async.process_id();
      return successor > 0 && successor != victim;
    });
    times.draining = seconds_until(watch, "its first write", [&] {
      look_at_lock();
      return written_by(successor) > 0 || save.written.ready();
    });
    // Where the lock was never seen free, the successor took it at once.
    times.beyond = times.draining - (free == 0 ? times.started : free);
    const ckptring::SaveReport report = save.written.get();
    if (report.restarts != 1) throw std::runtime_error("the kill came too late");
    file_bytes = report.bytes;
    async.close();
  }
  // By now both are gone, so that the kernel has charged what they wrote.
  times.rewritten_bytes = static_cast<double>(bytes_written_by_ended_children() - before) -
                          static_cast<double>(file_bytes);
  return times;
}

}  // namespace bench
