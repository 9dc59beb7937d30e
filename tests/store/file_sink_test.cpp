// What is particular to the built-in file writer.

#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"

#include "support/write_modes.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

namespace ckptring::store::test {
namespace {

class FileSink : public ::testing::Test {
 protected:
  SaveTarget target(const std::string& directory) const {
    return make_target(system_files(), directory, {0, 1}, bytes_.size());
  }
  static std::unique_ptr<SaveSink> sink(const SaveTarget& where,
                                        FileSystem& files = system_files()) {
    return make_file_sink(files, {}, where, nullptr);
  }
  static mode_t mode_of(const std::string& path) {
    struct ::stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
    return status.st_mode & 07777;
  }

  TemporaryDirectory scratch_;
  std::vector<std::byte> bytes_ = random_bytes(100'000);
};

TEST_F(FileSink, MakesFilesAndDirectoriesUnderTheProcessesUmask) {
  for (const auto& [mask, file_mode, directory_mode] :
       {std::tuple(0022U, 0644U, 0755U), std::tuple(0077U, 0600U, 0700U),
        std::tuple(0002U, 0664U, 0775U)}) {
    const mode_t before = ::umask(mask);
    save_all(*sink(target(scratch_ / "a/b")), bytes_, 16384);
    ::umask(before);
    EXPECT_EQ(mode_of(scratch_ / "a/b/checkpoint_0.pt"), file_mode);
    EXPECT_EQ(mode_of(scratch_ / "a/b"), directory_mode);
    EXPECT_EQ(mode_of(scratch_ / "a"), directory_mode);
    std::filesystem::remove_all(scratch_ / "a");
  }
}

TEST_F(FileSink, HoldsTheTemporarysLockUntilTheCommit) {
  const SaveTarget where = target(scratch_.path());
  const std::string temporary = scratch_ / where.temporary_name;
  const auto one = sink(where);
  ASSERT_TRUE(one->begin(Beginning::fresh));
  const os::UniqueFd other(::open(temporary.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), -1);
  write_blocks(*one, bytes_, 16384, 0, 7);
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), -1);
  one->commit(kIgnorePhases);
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(FileSink, IsNotHeldByAForkedChild) {
  const SaveTarget where = target(scratch_.path());
  auto one = sink(where);
  ASSERT_TRUE(one->begin(Beginning::fresh));
  int channel[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel), 0);
  const pid_t child = ::fork();  // a data loader
  char byte = 0;
  if (child == 0) {
    ::close(channel[0]);
    // "I run now", and then for as long as the parent wants.
    const bool told = ::write(channel[1], &byte, 1) == 1;
    ::_exit(told && ::read(channel[1], &byte, 1) == 0 ? 0 : 1);
  }
  ::close(channel[1]);
  ASSERT_EQ(::read(channel[0], &byte, 1), 1);
  one.reset();  // as if the parent had died
  const os::UniqueFd other(::open((scratch_ / where.temporary_name).c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(::waitpid(child, nullptr, WNOHANG), 0) << "the child was to be alive";
  ::close(channel[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(FileSink, OpensTheTemporaryExactlyOnce) {
  class Counting final : public ForwardingFiles {
   public:
    int open(const std::string& path, int flags, mode_t mode) override {
      if (path.ends_with(".tmp")) ++opened;
      return ForwardingFiles::open(path, flags, mode);
    }
    int opened = 0;
  } files;
  const SaveTarget where = target(scratch_.path());
  save_all(*sink(where, files), bytes_, 16384);
  EXPECT_EQ(files.opened, 1);
}

TEST_F(FileSink, StartsAgainWhereItsFreshTemporaryIsRemovedBeforeItsLock) {
  // A remover that knows no directory lock, in the worst of moments.
  class Removing final : public ForwardingFiles {
   public:
    int flock(int fd, int operation) override {
      struct ::stat status {};
      EXPECT_EQ(fstat(fd, status), 0);
      if (S_ISREG(status.st_mode) && removals < 2 && ::unlink(path.c_str()) == 0) ++removals;
      return ForwardingFiles::flock(fd, operation);
    }
    std::string path;
    int removals = 0;
  } files;
  const SaveTarget where = target(scratch_.path());
  files.path = scratch_ / where.temporary_name;
  save_all(*sink(where, files), bytes_, 16384);
  EXPECT_EQ(files.removals, 2);
  EXPECT_EQ(contents(scratch_ / "checkpoint_0.pt"), bytes_);
}

TEST_F(FileSink, MakesItsDirectoryAgainThatAnothersAbortRemoved) {
  std::filesystem::create_directories(scratch_ / "run/step");
  const SaveTarget where = target(scratch_ / "run/step");
  ASSERT_EQ(where.missing_levels, 0U);
  std::filesystem::remove_all(scratch_ / "run");
  save_all(*sink(where), bytes_, 16384);
  EXPECT_EQ(contents(scratch_ / "run/step/checkpoint_0.pt"), bytes_);
}

TEST_F(FileSink, RemovesOnlyDirectoriesThatItMade) {
  const SaveTarget where = target(scratch_ / "run/step");
  // Somebody else makes the outer one meanwhile.
  std::filesystem::create_directory(scratch_ / "run");
  const auto one = sink(where);
  ASSERT_TRUE(one->begin(Beginning::fresh));
  one->abort();
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{"run"});
}

TEST_F(FileSink, SaysWhenADirectoryTurnedIntoAFile) {
  const SaveTarget where = target(scratch_ / "run/step");
  write_text(scratch_ / "run", "text");
  const auto one = sink(where);
  const Error error = error_of([&] { one->begin(Beginning::fresh); });
  EXPECT_EQ(error.errno_value(), ENOTDIR);
  one->abort();
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{"run"});
}

TEST_F(FileSink, KeepsQueueDepthManyWritesInFlight) {
  const std::string refusal = ckptring::test::refusal_of(WriteMode::direct_io_uring);
  if (!refusal.empty()) GTEST_SKIP() << refusal;
  CheckpointWriterConfig config;
  config.mode = WriteMode::direct_io_uring;
  config.queue_depth = 5;
  const SaveTarget where = target(scratch_.path());
  const auto one = make_file_sink(system_files(), config, where, nullptr);
  EXPECT_EQ(one->room(), 0U);
  ASSERT_TRUE(one->begin(Beginning::fresh));
  EXPECT_EQ(one->room(), 5U);
  AlignedBytes memory(4096);
  one->submit({1, 0, memory.data(), 4096, 4096});
  EXPECT_EQ(one->room(), 4U);
  std::vector<std::uint64_t> done;
  while (done.empty()) {
    wait_for_completion(*one);
    one->reap(done);
  }
  EXPECT_EQ(one->room(), 5U);
  one->abort();
}

}  // namespace
}  // namespace ckptring::store::test
