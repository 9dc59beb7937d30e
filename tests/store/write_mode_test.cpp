// Which way the bytes go, and what happens where a way is closed.

#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <thread>

namespace ckptring::store::test {
namespace {

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
  long magic = 0;
  std::optional<std::uint32_t> alignment;
  int no_locks = 0;
  std::atomic<int> plain_writes = 0;
  std::atomic<int> dsync_writes = 0;
  std::atomic<int> direct_writes = 0;
};

class WriteModes : public ::testing::Test {
 protected:
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
  EXPECT_EQ(files.direct_writes, 7) << "$TMPDIR must be on ext4, xfs, btrfs or f2fs";
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

/// For the calling thread only, and for good.
bool forbid_io_uring(int error) {
  ::sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const ::sock_fprog filter{4, program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_F(WriteModes, ThreadsTakeOverWhereIoUringIsForbidden) {
  for (const int error : {EPERM, ENOSYS, ENOMEM}) {
    std::thread contained([&] {
      ASSERT_TRUE(forbid_io_uring(error));
      save(system_files(), WriteMode::automatic);
      EXPECT_EQ(refused(system_files(), WriteMode::direct_io_uring), ErrorCode::invalid_argument);
    });
    contained.join();
  }
}

}  // namespace
}  // namespace ckptring::store::test
