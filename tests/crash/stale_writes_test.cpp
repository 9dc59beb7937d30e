// A killed process may leave writes in flight. Until they have ended, its successor must leave the
// file, the ring and its blocks alone: a block that was released would be refilled, and a late
// write would carry the new bytes to the old place.
#include "crash/crash_test.h"
#include "crash/traced_trainer.h"
#include "drain/drain_protocol.h"
#include "os/unique_fd.h"
#include "ring/segment.h"
#include "support/fault_row.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace ckptring::test {
namespace {

const std::set<long> kWrites{SYS_io_uring_enter, SYS_pwrite64, SYS_pwritev2};
/// Where the first process is killed; the last two come when all blocks are on disk.
const std::set<long> kDeaths{SYS_io_uring_enter, SYS_pwrite64, SYS_pwritev2, SYS_ftruncate,
                             SYS_fsync};
/// What changes the file, its name or its size.
const std::set<long> kChanges{SYS_io_uring_enter, SYS_pwrite64, SYS_pwritev2, SYS_fallocate,
                              SYS_ftruncate,      SYS_fsync,    SYS_rename,   SYS_unlink};

std::string path_behind(pid_t process, std::uint64_t fd) {
  std::error_code gone;
  return std::filesystem::read_symlink(
             "/proc/" + std::to_string(process) + "/fd/" + std::to_string(fd), gone)
      .string();
}

/// What a successor does before it holds the lock of the temporary.
struct BeforeTheLock {
  std::atomic<int> refused{0};  ///< attempts that found the lock held
  std::atomic<int> changes{0};  ///< calls that it may not make
  std::atomic<bool> locked{false};

  Script script() {
    return [this](const TracedCall& call) {
      if (locked) return Verdict::go_on();
      if (call.entering && kChanges.contains(call.number)) ++changes;
      if (!call.entering && call.number == SYS_flock &&
          path_behind(call.process, call.arguments[0]).ends_with(".tmp")) {
        if (call.result == 0) locked = true;
        if (call.result == -EAGAIN) ++refused;
      }
      return Verdict::go_on();
    };
  }
};

/// The open file description of a process's temporary, as a write in flight keeps it, and its ring.
struct Remains {
  os::UniqueFd temporary;
  std::optional<ring::Segment> ring;

  static Remains of(pid_t process) {
    Remains remains;
    const os::UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
    const std::string folder = "/proc/" + std::to_string(process) + "/fd/";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const int fd = std::stoi(entry.path().filename());
      if (path_behind(process, static_cast<std::uint64_t>(fd)).ends_with(".tmp")) {
        remains.temporary =
            os::UniqueFd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)));
      }
    }
    const std::string ring = folder + std::to_string(drain::kRing);
    remains.ring.emplace(
        ring::Segment::attach(os::UniqueFd(::open(ring.c_str(), O_RDWR | O_CLOEXEC))));
    return remains;
  }
};

void wait_until(const std::function<bool()>& reached) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!reached()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

using StaleWrites = OfTracedTrainers<CrashTestOfModes>;

/// Why this host does not let a process's descriptors be copied; empty: it does.
std::string refusal_of_remains() {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    for (;;) ::pause();
  }
  const os::UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  const os::UniqueFd copy(
      static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), STDERR_FILENO, 0)));
  const int error = errno;
  (void)::kill(child, SIGKILL);
  (void)::waitpid(child, nullptr, 0);
  return copy ? "" : "this host refuses pidfd_getfd: " + std::generic_category().message(error);
}

TEST_P(StaleWrites, KeepTheSuccessorFromTouchingAnythingUntilTheyHaveEnded) {
  const std::string refusal = refusal_of_remains();
  if (!refusal.empty()) GTEST_SKIP() << refusal;
  const auto storages = noise({150'000, 30'000}, 1);
  const std::string expected = undisturbed_file(directory_ / "expected", storages);
  FaultRow row{"stale writes of a dead process, " + name_of(GetParam())};
  TracedTrainer trainer(small_config(GetParam(), 4));
  for (int nth = 0; nth < 14; ++nth) {
    SCOPED_TRACE("killed at point " + std::to_string(nth));
    trainer.meet_new_helper();
    const SaveHandle save = trainer.async().submit(job_for(directory_ / "run", storages));
    Remains remains;
    std::atomic<bool> killed{false};
    BeforeTheLock successor;
    trainer.tracer().release({[&, writes = 0](const TracedCall& call) mutable {
                                if (!call.entering || !kDeaths.contains(call.number) ||
                                    writes++ != nth) {
                                  return Verdict::go_on();
                                }
                                remains = Remains::of(call.process);
                                killed = true;
                                return Verdict::kill();
                              },
                              successor.script()});
    ASSERT_NO_FATAL_FAILURE(wait_until([&] { return killed.load(); }));
    ASSERT_TRUE(remains.temporary);
    // The trainer stages on until the ring is full; then nothing moves any more.
    const ring::SegmentView& ring = remains.ring->view();
    const std::uint64_t number = ring.consumer().finished_saves.load() + 1;
    const std::uint64_t tail = ring.consumer().tail.load();
    const std::uint64_t blocks =
        (expected.size() + kSmallBlock - 1) / kSmallBlock + ring.record(number).first_position;
    const std::uint64_t staged = std::min(tail + ring.geometry().slot_count, blocks);
    ASSERT_NO_FATAL_FAILURE(wait_until([&] {
      for (std::uint64_t at = tail; at < staged; ++at) {
        if (ring.slot(at).published.load() != at + 1) return false;
      }
      return true;
    }));
    const std::vector<std::byte> image(ring.blocks().begin(), ring.blocks().end());
    struct ::stat before {};
    ASSERT_EQ(::fstat(remains.temporary.get(), &before), 0);

    ASSERT_NO_FATAL_FAILURE(
        wait_until([&] { return successor.refused >= 20 || successor.locked; }));
    ASSERT_FALSE(successor.locked) << "though the dead process's writes may be under way";
    EXPECT_EQ(ring.consumer().tail.load(), tail) << "released";
    EXPECT_TRUE(std::equal(image.begin(), image.end(), ring.blocks().begin())) << "patched";
    struct ::stat after {};
    ASSERT_EQ(::fstat(remains.temporary.get(), &after), 0);
    EXPECT_EQ(after.st_size, before.st_size) << "truncated";
    EXPECT_FALSE(save.written.ready());

    // A late write reaches the disk: of a block that was not released, whatever its bytes.
    if (tail < blocks) {
      const std::unique_ptr<std::byte, decltype(&std::free)> late(
          static_cast<std::byte*>(std::aligned_alloc(4096, kSmallBlock)), &std::free);
      std::memset(late.get(), 0xDB, kSmallBlock);
      const std::uint64_t offset = (tail - ring.record(number).first_position) * kSmallBlock;
      ASSERT_EQ(
          ::pwrite(remains.temporary.get(), late.get(), kSmallBlock, static_cast<off_t>(offset)),
          static_cast<ssize_t>(kSmallBlock));
    }
    remains.temporary.reset();

    ++row.cases;
    if (save.written.error()) ++row.lost;
    if (contents_of(directory_ / "run/checkpoint_0.pt") != expected) ++row.torn;
    EXPECT_TRUE(successor.locked);
    EXPECT_EQ(successor.changes, 0) << "before it held the lock";
    EXPECT_EQ(entries_of(directory_ / "run"), 1);
    trainer.tracer().check();
  }
  trainer.close();
  row.report();
}

INSTANTIATE_TEST_SUITE_P(WriteModes, StaleWrites, write_modes(), mode_of_test);

using WritesInFlight = StaleWrites;

/// The same with whatever the kernel really leaves behind: many large direct writes on a file
/// whose space is reserved, which end long after the process.
TEST_P(WritesInFlight, OfAKilledProcessEndBeforeItsSuccessorBegins) {
  constexpr std::uint64_t kBlock = 1 << 20;
  const auto storages = noise({100 * kBlock}, 2);
  const std::string expected = undisturbed_file(directory_ / "expected", storages);
  FaultRow row{"killed with up to 64 direct writes in flight"};
  CheckpointerConfig config = small_config(GetParam(), 0);
  config.process_config.block_bytes = kBlock;
  config.process_config.ring_bytes = 72 * kBlock;
  config.writer_config.queue_depth = 64;
  TracedTrainer trainer(config);
  int waited = 0;
  constexpr std::array kWritesBefore{20, 64, 40, 63, 80};
  // On a quick disk, or if the successor starts late, they may all have ended by then.
  constexpr std::size_t kMost = 12 * kWritesBefore.size();
  for (std::size_t i = 0; i < kWritesBefore.size() || (waited == 0 && i < kMost); ++i) {
    const int nth = kWritesBefore[i % kWritesBefore.size()];
    SCOPED_TRACE("killed at write " + std::to_string(nth));
    trainer.meet_new_helper();
    const SaveHandle save = trainer.async().submit(job_for(directory_ / "run", storages));
    BeforeTheLock successor;
    trainer.tracer().release({[&, writes = 0](const TracedCall& call) mutable {
                                const bool last = !call.entering && kWrites.contains(call.number) &&
                                                  ++writes == nth;
                                return last ? Verdict::kill() : Verdict::go_on();
                              },
                              successor.script()});
    ++row.cases;
    if (save.written.error()) ++row.lost;
    if (contents_of(directory_ / "run/checkpoint_0.pt") != expected) ++row.torn;
    EXPECT_EQ(successor.changes, 0) << "before it held the lock";
    if (successor.refused > 0) ++waited;
    trainer.tracer().check();
  }
  trainer.close();
  row.report();
  if (waited == 0) GTEST_SKIP() << "no write outlived its process on this disk";
}

INSTANTIATE_TEST_SUITE_P(IoUring, WritesInFlight, ::testing::Values(WriteMode::direct_io_uring),
                         mode_of_test);

}  // namespace
}  // namespace ckptring::test
