// Which way the bytes go, and what happens where a way is closed.

#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"

#include "support/forbid_calls.h"
#include "support/log_lines.h"
#include "support/write_modes.h"

#include <linux/magic.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <thread>

namespace ckptring::store::test {
namespace {

using ckptring::test::forbid_call;
using ckptring::test::LogLines;

/// Tells which way the writes went, and can close the direct ones.
class Watching final : public ForwardingFiles {
 public:
  ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                 int rwf_flags) override {
    ++((rwf_flags & RWF_DSYNC) != 0 ? dsync_writes : plain_writes);
    if ((::fcntl(fd, F_GETFL) & O_DIRECT) != 0) ++direct_writes;
    return ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
  }
  int set_flags(int fd, int flags) override {
    if (refuse_flag && (flags & O_DIRECT) != 0) {
      errno = EINVAL;
      return -1;
    }
    return ForwardingFiles::set_flags(fd, flags);
  }
  ssize_t pread(int fd, void* data, std::size_t size, std::uint64_t offset) override {
    if (refuse_transfer) {
      errno = EINVAL;
      return -1;
    }
    return ForwardingFiles::pread(fd, data, size, offset);
  }
  int statfs(int fd, struct ::statfs& out) override {
    const int result = ForwardingFiles::statfs(fd, out);
    if (magic != 0) out.f_type = magic;
    return result;
  }
  int statx(int fd, unsigned mask, struct ::statx& out) override {
    if (no_statx) {
      errno = ENOSYS;
      return -1;
    }
    const int result = ForwardingFiles::statx(fd, mask, out);
    if (untold) out.stx_mask &= ~static_cast<unsigned>(STATX_DIOALIGN);
    if (alignment) {
      out.stx_mask |= STATX_DIOALIGN;
      out.stx_dio_mem_align = *alignment;
      out.stx_dio_offset_align = *alignment;
    }
    return result;
  }
  int flock(int fd, int operation) override {
    if (no_locks != 0) {
      errno = no_locks;
      return -1;
    }
    return ForwardingFiles::flock(fd, operation);
  }

  bool refuse_flag = false;
  bool refuse_transfer = false;
  bool no_statx = false;
  bool untold = false;
  long magic = 0;
  std::optional<std::uint32_t> alignment;
  int no_locks = 0;
  std::atomic<int> plain_writes = 0;
  std::atomic<int> dsync_writes = 0;
  std::atomic<int> direct_writes = 0;
};

class WriteModes : public ::testing::Test {
 protected:
  void SetUp() override {
    struct ::statfs status {};
    ASSERT_EQ(::statfs(scratch_.path().c_str(), &status), 0);
    switch (static_cast<unsigned long>(status.f_type)) {
      case EXT4_SUPER_MAGIC:
      case XFS_SUPER_MAGIC:
      case BTRFS_SUPER_MAGIC:
      case F2FS_SUPER_MAGIC:
        return;
      default:
        // Direct writes may be trusted here, or not: another layer decides.
        const std::string refusal = ckptring::test::refusal_of(WriteMode::direct_threads);
        if (!refusal.empty()) GTEST_SKIP() << refusal;
    }
  }

  void save(FileSystem& files, WriteMode mode) {
    const SaveTarget where = make_target(files, scratch_.path(), {}, bytes_.size());
    CheckpointWriterConfig config;
    config.mode = mode;
    const auto one = make_file_sink(files, config, where, nullptr);
    try {
      save_all(*one, bytes_, 16384);
    } catch (...) {
      one->abort();
      throw;
    }
    EXPECT_EQ(contents(scratch_ / "checkpoint_0.pt"), bytes_);
  }
  ErrorCode refused(FileSystem& files, WriteMode mode) {
    return error_of([&] { save(files, mode); }).code();
  }
  void expect_buffered(Watching& files) {
    save(files, WriteMode::automatic);
    EXPECT_EQ(files.plain_writes, 0);
    EXPECT_EQ(files.direct_writes, 0);
    EXPECT_EQ(files.dsync_writes, 7) << "each block must be on disk before it is released";
    EXPECT_EQ(refused(files, WriteMode::direct_threads), ErrorCode::invalid_argument);
    EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{"checkpoint_0.pt"});
  }

  TemporaryDirectory scratch_;
  std::vector<std::byte> bytes_ = random_bytes(100'000);
};

TEST_F(WriteModes, WritesAreDirectWhereTheyCanBeTrusted) {
  Watching files;
  save(files, WriteMode::automatic);
  EXPECT_EQ(files.dsync_writes, 0);
  EXPECT_EQ(files.direct_writes, 7);
}

TEST_F(WriteModes, TheSeamSeesEveryWriteUnlessItAllowsOtherwise) {
  Watching files;
  EXPECT_EQ(refused(files, WriteMode::direct_io_uring), ErrorCode::invalid_argument);
}

TEST_F(WriteModes, WritesAreBufferedWhereTheFlagIsRefused) {
  Watching files;
  files.refuse_flag = true;
  expect_buffered(files);
}

TEST_F(WriteModes, WritesAreBufferedWhereTheFirstTransferIsRefused) {
  Watching files;
  files.refuse_transfer = true;
  expect_buffered(files);
}

TEST_F(WriteModes, WritesAreBufferedOnFileSystemsThatAreNotTrusted) {
  for (const long magic : {NFS_SUPER_MAGIC, TMPFS_MAGIC, 0x65735546, 0x12345678}) {
    Watching files;
    files.magic = magic;
    expect_buffered(files);
  }
}

TEST_F(WriteModes, WritesAreBufferedWhereDirectOnesNeedAnotherAlignment) {
  for (const std::uint32_t alignment : {0U, 8192U, 65536U, 3U}) {
    Watching files;
    files.alignment = alignment;
    expect_buffered(files);
  }
}

TEST_F(WriteModes, WritesAreDirectWhereTheAlignmentIsSmallOrUnknown) {
  for (const std::uint32_t alignment : {512U, 4096U}) {
    Watching files;
    files.alignment = alignment;
    save(files, WriteMode::automatic);
    EXPECT_EQ(files.direct_writes, 7);
  }
  Watching files;
  files.no_statx = true;
  save(files, WriteMode::automatic);
  EXPECT_EQ(files.direct_writes, 7);
}

TEST_F(WriteModes, WritesAreBufferedWhereThereAreNoLocks) {
  for (const int error : {ENOLCK, ENOSYS, EOPNOTSUPP}) {
    Watching files;
    files.no_locks = error;
    expect_buffered(files);
  }
}

TEST_F(WriteModes, ForcedBufferedWritesAreBuffered) {
  Watching files;
  save(files, WriteMode::buffered);
  EXPECT_EQ(files.dsync_writes, 7);
  EXPECT_EQ(files.direct_writes, 0);
}

TEST_F(WriteModes, ThreadsTakeOverWhereIoUringIsForbidden) {
  // A sandbox may know one of its calls and not the other.
  for (const long call : {__NR_io_uring_setup, __NR_io_uring_enter}) {
    for (const int error : {EPERM, ENOSYS, ENOMEM}) {
      std::thread contained([&] {
        ASSERT_TRUE(forbid_call(call, error));
        save(system_files(), WriteMode::automatic);
        EXPECT_EQ(refused(system_files(), WriteMode::direct_io_uring), ErrorCode::invalid_argument);
      });
      contained.join();
    }
  }
}

/// What this machine lacks is said once in a process: each of these runs in one of its own.
class WriteModesDeathTest : public WriteModes {
 protected:
  WriteModesDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  /// Saves three times and leaves: with 0 if the log had one line with `part`, about that save.
  [[noreturn]] void save_and_leave(FileSystem& files, LogLevel level, const char* part) {
    const LogLines log;
    for (std::uint64_t number = 7; number < 10; ++number) {
      SaveTarget where = make_target(files, scratch_.path(), {2, 4}, bytes_.size());
      where.save = number;
      save_all(*make_file_sink(files, {}, where, nullptr), bytes_, 16384);
    }
    const auto lines = log.with(part);
    const bool right = lines.size() == 1 && lines[0].level == level &&
                       lines[0].text.starts_with("[rank 2] [save 7] ");
    std::_Exit(right ? 0 : 1);
  }
};

TEST_F(WriteModesDeathTest, MissingLocksAreAWarningOnce) {
  const auto run = [this] {
    Watching files;
    files.no_locks = ENOLCK;
    save_and_leave(files, LogLevel::warn, "a quick restart after a crash is not guarded");
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST_F(WriteModesDeathTest, BufferedWritesAreSaidOnceAndWhy) {
  const auto run = [this] {
    Watching files;
    files.refuse_flag = true;
    save_and_leave(files, LogLevel::info, "the page cache, not O_DIRECT: O_DIRECT: Invalid arg");
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST_F(WriteModesDeathTest, AnUnknownAlignmentIsSaidOnce) {
  const auto run = [this] {
    Watching files;
    files.untold = true;
    save_and_leave(files, LogLevel::info, "alignment direct writes need (statx, Linux 6.1): 4096");
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST_F(WriteModesDeathTest, AForbiddenIoUringIsSaidOnceAndWhy) {
  const auto run = [this] {
    if (!forbid_call(__NR_io_uring_setup, EPERM)) std::_Exit(2);
    save_and_leave(system_files(), LogLevel::info, "io_uring: Operation not permitted");
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace ckptring::store::test
