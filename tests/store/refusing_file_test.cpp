// Files that refuse what is written to them, by the kernel's own errors: what reaches io_uring
// cannot be seen by the seam, so the file behind the descriptor is changed for another one.

#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"
#include "store/uring_writes.h"

#include "os/unique_fd.h"
#include "support/temporary_directory.h"
#include "support/write_modes.h"

#include <linux/magic.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <string>
#include <thread>

namespace ckptring::store::test {
namespace {

using os::UniqueFd;

/// From the reservation on, every descriptor that is reserved for is that of another file, which is
/// said to be as good.
class Exchanged final : public ForwardingFiles {
 public:
  explicit Exchanged(int other) : other_(other) {}

  int fallocate(int fd, std::uint64_t bytes) override {
    const int result = ForwardingFiles::fallocate(fd, bytes);
    return result == 0 && ::dup3(other_, fd, O_CLOEXEC) == fd ? 0 : -1;
  }
  int statfs(int, struct ::statfs& out) override {
    out = {};
    out.f_type = EXT4_SUPER_MAGIC;
    return 0;
  }
  int statx(int, unsigned, struct ::statx&) override {
    errno = ENOSYS;
    return -1;
  }
  int set_flags(int, int) override { return 0; }
  ssize_t pread(int, void*, std::size_t size, std::uint64_t) override {
    return static_cast<ssize_t>(size);
  }
  ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset, int) override {
    return ForwardingFiles::pwrite(fd, data, size, offset, /*rwf_flags=*/0);  // devices know none
  }
  [[nodiscard]] bool allows_raw_io() const override { return true; }

 private:
  int other_;
};

UniqueFd opened(const char* path, int flags) { return UniqueFd(::open(path, flags | O_CLOEXEC)); }

/// The end of a pipe that takes data, and that which gives it.
std::array<UniqueFd, 2> pipe_of(int flags) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | flags) != 0) throw std::runtime_error("pipe");
  return {UniqueFd(ends[1]), UniqueFd(ends[0])};
}

class RefusingFile : public ckptring::test::OfWriteModes<::testing::Test> {
 protected:
  RefusingFile() {
    if (std::signal(SIGPIPE, SIG_IGN) == SIG_ERR) throw std::runtime_error("signal");
  }

  Error error_of_save_to(const UniqueFd& other) {
    Exchanged files(other.get());
    const std::vector<std::byte> bytes = random_bytes(100'000);
    const SaveTarget where = make_target(system_files(), scratch_ / "run", {}, bytes.size());
    temporary_name_ = where.temporary_name;
    CheckpointWriterConfig config;
    config.mode = GetParam();
    const auto one = make_file_sink(files, config, where, nullptr);
    Error error = error_of([&] { save_all(*one, bytes, 16384); });
    one->abort();
    return error;
  }
  void expect_named(const UniqueFd& other, int errno_value, ErrorCode code) {
    ASSERT_TRUE(other);
    const Error error = error_of_save_to(other);
    EXPECT_EQ(error.errno_value(), errno_value) << error.what();
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(error.operation().find("write"), std::string::npos) << error.what();
    EXPECT_NE(error.path().find(temporary_name_), std::string::npos) << error.what();
    EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{}) << "something was left";
  }

  ckptring::test::TemporaryDirectory scratch_;
  std::string temporary_name_;
};

TEST_P(RefusingFile, ThatIsFullFailsTheSaveWithNoSpace) {
  expect_named(opened("/dev/full", O_WRONLY), ENOSPC, ErrorCode::no_space);
}

TEST_P(RefusingFile, ThatIsOpenForReadingOnlyFailsTheSave) {
  expect_named(opened("/dev/zero", O_RDONLY), EBADF, ErrorCode::io);
}

TEST_P(RefusingFile, ThatIsAPipeWithoutAReaderFailsTheSave) {
  auto [in, out] = pipe_of(0);
  out.reset();
  // Threads say where they write, which a pipe cannot do; io_uring writes to one all the same.
  expect_named(in, GetParam() == WriteMode::direct_io_uring ? EPIPE : ESPIPE, ErrorCode::io);
}

INSTANTIATE_TEST_SUITE_P(WriteModes, RefusingFile, ckptring::test::write_modes(),
                         ckptring::test::mode_of_test);

// What a pipe takes at once is a part of the write; a reader makes room for the rest.
TEST(IoUringWrites, ThatArePartlyTakenAreContinuedUntilAllBytesAreWritten) {
  constexpr std::size_t kBytes = 1 << 20;
  auto [in, out] = pipe_of(0);
  UringWrites::Opened opened = UringWrites::open(in.get(), "a pipe", 1, 1);
  if (!opened.queue) GTEST_SKIP() << "this host refuses io_uring: " << ::strerror(opened.error);
  const std::vector<std::byte> bytes = random_bytes(kBytes);
  std::vector<std::byte> seen;
  std::thread reader([&, from = out.get()] {
    std::array<std::byte, 1000> buffer{};
    while (seen.size() < kBytes) {
      const ssize_t got = ::read(from, buffer.data(), buffer.size());
      if (got <= 0) return;
      seen.insert(seen.end(), buffer.begin(), buffer.begin() + got);
    }
  });
  std::vector<WriteQueue::Done> done;
  opened.queue->submit(7, 0, bytes.data(), bytes.size());
  while (done.empty()) {
    ::pollfd entry{opened.queue->completion_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&entry, 1, 30'000), 1);
    opened.queue->reap(done);
  }
  opened.queue.reset();
  in.reset();
  reader.join();
  EXPECT_EQ(done.front().error, 0);
  EXPECT_EQ(done.front().token, 7U);
  EXPECT_TRUE(seen == bytes);
}

}  // namespace
}  // namespace ckptring::store::test
