// What the death of a process costs: the time until draining goes on, by the trainer's size
#include "support/command.h"
#include "support/noise_state.h"
#include "support/report.h"
#include "support/stopwatch.h"
#include "support/work_directory.h"

#include "save/async_save.h"

#include <ckptring/log.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using bench::Goal;
using bench::Series;
using bench::Stopwatch;

constexpr double kMebibyte = 1 << 20;
constexpr double kGibibyte = 1 << 30;
constexpr double kStuckSecs = 60;

struct Options {
  int kills = 15;
  std::vector<double> resident_gib{0.1, 1, 8};
  std::uint64_t state_mib = 256;
};

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// Private memory in 4 KiB pages, all of it touched: what a trainer has resident.
class Resident {
 public:
  explicit Resident(std::uint64_t bytes) : bytes_(bytes) {
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) fail("allocate");
    if (::madvise(memory_, bytes_, MADV_NOHUGEPAGE) != 0) fail("forbid huge pages");
    std::memset(memory_, 1, bytes_);
  }
  ~Resident() { (void)::munmap(memory_, bytes_); }
  Resident(const Resident&) = delete;
  Resident& operator=(const Resident&) = delete;

 private:
  std::size_t bytes_;
  void* memory_ = nullptr;
};

/// What a process has submitted to the disk so far; 0 once it is gone.
std::uint64_t written_by(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/io");
  for (std::string word; in >> word;) {
    if (word != "write_bytes:") continue;
    std::uint64_t bytes = 0;
    in >> bytes;
    return bytes;
  }
  return 0;
}

/// Sees when the lock of a temporary becomes free: a dead process's writes in flight keep it.
class LockWatch {
 public:
  explicit LockWatch(const std::string& directory) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      if (entry.path().filename().string().front() != '.') continue;
      fd_ = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    }
    if (fd_ < 0) throw std::runtime_error("no temporary in " + directory);
  }
  ~LockWatch() { ::close(fd_); }
  LockWatch(const LockWatch&) = delete;
  LockWatch& operator=(const LockWatch&) = delete;

  /// Whether nobody holds it now. Ask no more once it was free: asking takes it for a moment.
  [[nodiscard]] bool is_free() const {
    if (::flock(fd_, LOCK_SH | LOCK_NB) == 0) return ::flock(fd_, LOCK_UN) == 0;
    return false;
  }

 private:
  int fd_ = -1;
};

template <class Condition>
double seconds_until(const Stopwatch& watch, const char* what, Condition&& condition) {
  while (!condition()) {
    if (watch.seconds() > kStuckSecs) throw std::runtime_error(std::string("waited for ") + what);
  }
  return watch.seconds();
}

/// What the kernel charged to the children that were waited for.
std::uint64_t bytes_written_by_ended_children() {
  ::rusage usage{};
  if (::getrusage(RUSAGE_CHILDREN, &usage) != 0) fail("getrusage");
  return static_cast<std::uint64_t>(usage.ru_oublock) * 512;
}

/// The figures of one trainer's size.
struct OfSize {
  explicit OfSize(double gib)
      : resident_gib(gib),
        started(series("started", "until another process was started", "ms")),
        draining(series("draining", "until it wrote again", "ms")),
        beyond(series("beyond", "the same beyond the dead one's writes in flight", "ms")),
        rewritten(series("rewritten", "written twice, per kill", "MiB")),
        forked(series("forked", "beside it: a bare fork of the trainer", "ms")) {}

  [[nodiscard]] Series series(const char* id, const char* label, const char* unit) const {
    return {fmt::format("{}_{:g}gib", id, resident_gib),
            fmt::format("{:g} GiB resident: {}", resident_gib, label),
            unit,
            {}};
  }

  double resident_gib;
  Series started;
  Series draining;
  Series beyond;
  Series rewritten;
  Series forked;
};

class RestartBenchmark {
 public:
  RestartBenchmark(const Options& options, const std::string& directory)
      : options_(options), work_(directory), state_(options.state_mib << 20) {
    ckptring::set_log_level(ckptring::LogLevel::error);
    // The orphans of killed trainers become this process's children, and can be waited for.
    if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) fail("become subreaper");
    for (const double gib : options.resident_gib) sizes_.emplace_back(gib);
  }

  bench::Report run() {
    // Up and down again, so that a drift of the machine is not taken for growth.
    const int half = (options_.kills + 1) / 2;
    for (OfSize& size : sizes_) kill_helpers(size, half);
    for (auto size = sizes_.rbegin(); size != sizes_.rend(); ++size) {
      kill_helpers(*size, options_.kills - half);
    }
    for (int i = 0; i < options_.kills; ++i) kill_trainer();
    return make_report();
  }

 private:
  [[nodiscard]] ckptring::CheckpointerConfig config() const {
    ckptring::CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.ring_bytes = (options_.state_mib + 16) << 20;
    return config;
  }

  void kill_helpers(OfSize& size, int kills) {
    const auto resident =
        std::make_unique<Resident>(static_cast<std::uint64_t>(size.resident_gib * kGibibyte));
    for (int i = 0; i < kills; ++i) {
      kill_helper(size);
      const Stopwatch watch;
      const pid_t child = ::fork();
      if (child < 0) fail("fork");
      if (child == 0) ::_exit(0);
      size.forked.add(watch.seconds() * 1e3);
      if (::waitpid(child, nullptr, 0) != child) fail("waitpid");
    }
  }

  /// Kills it at some point of one save's way to the disk, which it then completes.
  void kill_helper(OfSize& size) {
    const std::uint64_t before = bytes_written_by_ended_children();
    std::uint64_t file_bytes = 0;
    double kills = 0;
    {
      ckptring::save::AsyncSave async(config(), {});
      async.ready();
      async.wait_prefaulted();
      const ckptring::SaveHandle save = async.submit(state_.job(work_.path() + "/save"));
      const pid_t victim = async.process_id();
      const std::uint64_t point = (options_.state_mib << 20) / 8 * (1 + random_() % 6);
      (void)seconds_until(Stopwatch(), "a write", [&] { return written_by(victim) >= point; });
      const LockWatch lock(work_.path() + "/save");
      const Stopwatch watch;
      if (::kill(victim, SIGKILL) != 0) fail("kill");
      double free = 0;
      const auto look_at_lock = [&] {
        if (free == 0 && lock.is_free()) free = watch.seconds();
      };
      pid_t successor = 0;
      const double started = seconds_until(watch, "a successor", [&] {
        look_at_lock();
        successor = async.process_id();
        return successor > 0 && successor != victim;
      });
      const double draining = seconds_until(watch, "its first write", [&] {
        look_at_lock();
        return written_by(successor) > 0 || save.written.ready();
      });
      const ckptring::SaveReport report = save.written.get();
      file_bytes = report.bytes;
      kills = report.restarts;
      if (kills != 1) throw std::runtime_error("the kill came too late");
      size.started.add(started * 1e3);
      size.draining.add(draining * 1e3);
      // Where the lock was never seen free, the successor took it at once.
      size.beyond.add((draining - (free == 0 ? started : free)) * 1e3);
      async.close();
    }
    const std::uint64_t written = bytes_written_by_ended_children() - before;
    size.rewritten.add((static_cast<double>(written) - static_cast<double>(file_bytes)) /
                       kMebibyte);
    work_.clear();
  }

  /// A trainer is killed right after its save was staged; its orphan commits and ends.
  void kill_trainer() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail("pipe");
    const pid_t trainer = ::fork();
    if (trainer < 0) fail("fork");
    if (trainer == 0) {
      try {
        ckptring::save::AsyncSave async(config(), {});
        async.ready();
        async.wait_prefaulted();
        const ckptring::SaveHandle save = async.submit(state_.job(work_.path() + "/orphaned"));
        save.staged.wait();
        const int helper = async.process_id();
        if (::write(ends[1], &helper, sizeof helper) != sizeof helper) ::_exit(1);
        for (;;) ::pause();
      } catch (...) {
        ::_exit(1);
      }
    }
    ::close(ends[1]);
    int helper = 0;
    const auto got = ::read(ends[0], &helper, sizeof helper);
    ::close(ends[0]);
    if (got != sizeof helper) throw std::runtime_error("the trainer did not get so far");
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, helper, 0));
    if (pidfd < 0) fail("pidfd_open");
    const std::uint64_t left =
        (options_.state_mib << 20) - std::min(written_by(helper), options_.state_mib << 20);
    const Stopwatch watch;
    if (::kill(trainer, SIGKILL) != 0 || ::waitpid(trainer, nullptr, 0) != trainer) fail("kill");
    const std::string file = work_.path() + "/orphaned/checkpoint_0.pt";
    const double committed =
        seconds_until(watch, "the commit", [&] { return ::access(file.c_str(), F_OK) == 0; });
    ::pollfd gone{pidfd, POLLIN, 0};
    if (::poll(&gone, 1, static_cast<int>(kStuckSecs * 1e3)) != 1) fail("wait for the end");
    orphan_left_.add(static_cast<double>(left) / kMebibyte);
    orphan_committed_.add(committed * 1e3);
    orphan_ended_.add(watch.seconds() * 1e3);
    ::close(pidfd);
    (void)::waitpid(helper, nullptr, 0);  // ours since its parent died
    work_.clear();
  }

  bench::Report make_report() {
    bench::Report report("restart", {{"kills", options_.kills},
                                     {"resident_gib", options_.resident_gib},
                                     {"state_mib", options_.state_mib}});
    report.heading("The checkpoint process is killed while it writes");
    for (const OfSize& size : sizes_) {
      for (const Series* one :
           {&size.started, &size.draining, &size.beyond, &size.rewritten, &size.forked}) {
        report.add(*one);
      }
    }
    report.heading("The trainer is killed once its save is staged");
    report.add(orphan_left_);
    report.add(orphan_committed_);
    report.add(orphan_ended_);
    for (const OfSize& size : sizes_) report.add(Goal{size.beyond, Goal::Kind::at_most, 10});
    return report;
  }

  Options options_;
  bench::WorkDirectory work_;
  bench::NoiseState state_;
  std::mt19937_64 random_{7};
  std::vector<OfSize> sizes_;
  Series orphan_left_{"orphan_left", "left to write when it died", "MiB", {}};
  Series orphan_committed_{"orphan_committed", "until the file was there", "ms", {}};
  Series orphan_ended_{"orphan_ended", "until the checkpoint process had ended", "ms", {}};
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  return bench::run_command(
      argc, argv,
      {.name = "bench_restart",
       .description = "What the death of a process costs: the time until draining goes on",
       .add_options =
           [&](CLI::App& app) {
             app.add_option("--kills", options.kills, "of each kind")
                 ->check(CLI::Range(1, 1000))
                 ->capture_default_str();
             app.add_option("--resident", options.resident_gib, "sizes of the trainer, in GiB")
                 ->check(CLI::Range(0.01, 1024.0))
                 ->capture_default_str();
             app.add_option("--state", options.state_mib, "what is saved, in MiB")
                 ->check(CLI::Range(64, 65536))
                 ->capture_default_str();
           },
       .measure =
           [&](const std::string& directory) { return RestartBenchmark(options, directory).run(); },
       .goals_must_be_reached = false});
}
