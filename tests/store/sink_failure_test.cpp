// What can go wrong on the way to the disk, and what is left then.

#include "store/directories.h"
#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"

#include "support/fault_row.h"
#include "support/own_mounts.h"
#include "support/write_modes.h"

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ckptring::store::test {
namespace {

using ckptring::test::in_own_mounts;
using ckptring::test::InOwnMounts;
using ckptring::test::mount_tmpfs;

std::unique_ptr<SaveSink> sink(FileSystem& files, const SaveTarget& target,
                               WriteMode mode = WriteMode::automatic) {
  CheckpointWriterConfig config;
  config.mode = mode;
  return make_file_sink(files, config, target, nullptr);
}

/// The ways to write of which the seam sees every write, and which can be had below $TMPDIR.
std::vector<WriteMode> seam_modes() {
  std::vector<WriteMode> modes{WriteMode::direct_threads, WriteMode::buffered};
  if (!ckptring::test::refusal_of(modes.front()).empty()) modes.erase(modes.begin());
  return modes;
}

class SinkFailure : public ::testing::Test {
 protected:
  SaveTarget target() const {
    return make_target(system_files(), scratch_ / "run/step_1", {0, 1}, bytes_.size());
  }
  void expect_nothing_left() const { EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{}); }

  TemporaryDirectory scratch_;
  std::vector<std::byte> bytes_ = random_bytes(100'000);
};

TEST_F(SinkFailure, ShortInterruptedAndTurnedAwayWritesAreFinished) {
  class Stuttering final : public ForwardingFiles {
    ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                   int rwf_flags) override {
      switch (calls_++ % 4) {
        case 0:
          errno = EINTR;
          return -1;
        case 1:
          errno = EAGAIN;
          return -1;
        case 2: {
          // Direct writes only go on from whole units; buffered ones from anywhere.
          const std::size_t part = rwf_flags == 0 ? 4096 : size / 2 + 1;
          return ForwardingFiles::pwrite(fd, data, std::min(size, part), offset, rwf_flags);
        }
        default:
          return ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
      }
    }
    std::atomic<int> calls_ = 0;
  };
  for (const WriteMode mode : seam_modes()) {
    Stuttering files;
    const SaveTarget where = target();
    save_all(*sink(files, where, mode), bytes_, 16384);
    EXPECT_EQ(contents(scratch_ / "run/step_1/checkpoint_0.pt"), bytes_);
  }
}

TEST_F(SinkFailure, AFailedWriteFailsTheSaveAndLeavesNothing) {
  class Failing final : public ForwardingFiles {
   public:
    explicit Failing(int error) : error_(error) {}

   private:
    ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                   int rwf_flags) override {
      if (offset != 2 * 16384) return ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
      errno = error_;
      return -1;
    }
    int error_;
  };
  for (const WriteMode mode : seam_modes()) {
    for (const auto& [error_number, code] :
         {std::pair(EIO, ErrorCode::io), std::pair(ENOSPC, ErrorCode::no_space),
          std::pair(EDQUOT, ErrorCode::no_space)}) {
      Failing files(error_number);
      const SaveTarget where = target();
      const auto one = sink(files, where, mode);
      const Error error = error_of([&] { save_all(*one, bytes_, 16384); });
      EXPECT_EQ(error.code(), code);
      EXPECT_EQ(error.errno_value(), error_number);
      EXPECT_NE(error.path().find(where.temporary_name), std::string::npos);
      one->abort();
      expect_nothing_left();
    }
  }
}

TEST_F(SinkFailure, AnAbortReturnsWhenNoWriteIsUnderWayAnyMore) {
  class Counting final : public ForwardingFiles {
   public:
    ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                   int rwf_flags) override {
      ++under_way;
      ++begun;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // a slow disk
      const ssize_t result = ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
      --under_way;
      return result;
    }
    std::atomic<int> under_way = 0;
    std::atomic<int> begun = 0;
  };
  for (const WriteMode mode : seam_modes()) {
    Counting files;
    const SaveTarget where = target();
    const auto one = sink(files, where, mode);
    ASSERT_TRUE(one->begin(Beginning::fresh));
    AlignedBytes memory(4 * 16384);
    for (std::uint64_t block = 0; block < 4; ++block) {
      one->submit({block, block * 16384, memory.data() + block * 16384, 16384, 16384});
    }
    while (files.begun == 0) std::this_thread::yield();
    one->abort();
    EXPECT_EQ(files.under_way, 0);
    expect_nothing_left();
  }
}

using SinkFailureOfModes = ckptring::test::OfWriteModes<SinkFailure>;

INSTANTIATE_TEST_SUITE_P(WriteModes, SinkFailureOfModes, ckptring::test::write_modes(),
                         ckptring::test::mode_of_test);

/// Fails one operation by name, and records all that change something, in order.
class Recording final : public ForwardingFiles {
 public:
  explicit Recording(std::string fail = {}, int error = EIO)
      : fail_(std::move(fail)), error_(error) {}
  [[nodiscard]] std::vector<std::string> log() {
    const std::scoped_lock lock(mutex_);
    return log_;
  }
  int fallocate(int fd, std::uint64_t bytes) override {
    return note("fallocate") ? ForwardingFiles::fallocate(fd, bytes) : -1;
  }
  int ftruncate(int fd, std::uint64_t bytes) override {
    return note("ftruncate") ? ForwardingFiles::ftruncate(fd, bytes) : -1;
  }
  int fsync(int fd) override {
    struct ::stat status {};
    (void)fstat(fd, status);
    return note(S_ISDIR(status.st_mode) ? "fsync directory" : "fsync file")
               ? ForwardingFiles::fsync(fd)
               : -1;
  }
  ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                 int rwf_flags) override {
    note("pwrite");
    return ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
  }
  int rename(const std::string& from, const std::string& to) override {
    return note("rename") ? ForwardingFiles::rename(from, to) : -1;
  }
  int mkdir(const std::string& path, mode_t mode) override {
    return note("mkdir") ? ForwardingFiles::mkdir(path, mode) : -1;
  }

 private:
  bool note(const std::string& operation) {
    const std::scoped_lock lock(mutex_);
    log_.push_back(operation);
    errno = error_;
    return operation != fail_;
  }
  std::string fail_;
  int error_;
  std::mutex mutex_;
  std::vector<std::string> log_;
};

std::vector<std::string> after(const std::vector<std::string>& log, const std::string& last) {
  const auto at = std::find(log.rbegin(), log.rend(), last);
  return {at.base(), log.end()};
}

TEST_F(SinkFailure, TheCommitSyncsTheFileThenRenamesThenSyncsEachNewName) {
  for (const WriteMode mode : seam_modes()) {
    Recording files;
    const SaveTarget where = target();
    ASSERT_EQ(where.missing_levels, 2U);
    save_all(*sink(files, where, mode), bytes_, 16384);
    // step_1 holds the file, run holds step_1, the scratch directory holds run.
    std::vector<std::string> expected = {"fsync file", "rename", "fsync directory",
                                         "fsync directory", "fsync directory"};
    if (mode != WriteMode::buffered) expected.insert(expected.begin(), "ftruncate");
    std::vector<std::string> commit = after(files.log(), "pwrite");
    if (commit.front() == "ftruncate" && mode == WriteMode::buffered) commit.erase(commit.begin());
    EXPECT_EQ(commit, expected);
    std::filesystem::remove_all(scratch_ / "run");
  }
}

TEST_F(SinkFailure, AFailedFsyncIsNeverTriedAgain) {
  for (const WriteMode mode : seam_modes()) {
    Recording files("fsync file");
    const SaveTarget where = target();
    const auto one = sink(files, where, mode);
    EXPECT_EQ(error_of([&] { save_all(*one, bytes_, 16384); }).code(), ErrorCode::io);
    EXPECT_THROW(one->commit(kIgnorePhases), Error);
    const std::vector<std::string> log = files.log();
    EXPECT_EQ(std::count(log.begin(), log.end(), "fsync file"), 1);
    EXPECT_EQ(std::count(log.begin(), log.end(), "rename"), 0);
    one->abort();
    expect_nothing_left();
  }
}

TEST_F(SinkFailure, AnyFailedStepBeforeTheRenameLeavesNothing) {
  for (const char* step : {"mkdir", "fallocate", "ftruncate", "rename"}) {
    Recording files(step);
    const SaveTarget where = target();
    const auto one = sink(files, where, seam_modes().front());
    EXPECT_EQ(error_of([&] { save_all(*one, bytes_, 16384); }).code(), ErrorCode::io) << step;
    one->abort();
    expect_nothing_left();
  }
}

TEST_F(SinkFailure, AFileThatIsMadeWithoutADescriptorThatCanBeKeptIsNotLeft) {
  class LeavesNoDescriptor final : public ForwardingFiles {
    int open(const std::string& path, int flags, mode_t mode) override {
      const int fd = ForwardingFiles::open(path, flags, mode);
      if ((flags & O_CREAT) == 0 || fd < 0) return fd;
      ::close(fd);
      errno = EMFILE;
      return -1;
    }
  } files;
  const auto one = sink(files, target());
  EXPECT_EQ(error_of([&] { (void)one->begin(Beginning::fresh); }).errno_value(), EMFILE);
  one->abort();
  expect_nothing_left();
}

TEST_F(SinkFailure, AFileOfTheNameThatIsSomebodyElsesIsLeftAlone) {
  const SaveTarget where = target();
  const std::string path = path_in(where.directory, where.temporary_name);
  class AlreadyThere final : public ForwardingFiles {
    int open(const std::string& path, int flags, mode_t mode) override {
      if ((flags & O_CREAT) != 0) std::ofstream(path) << "of somebody else";
      return ForwardingFiles::open(path, flags, mode);
    }
  } files;
  const auto one = sink(files, where);
  EXPECT_EQ(error_of([&] { (void)one->begin(Beginning::fresh); }).errno_value(), EEXIST);
  one->abort();
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(SinkFailure, ADescriptorThatSomebodyHasClosedIsNoFileWithoutLocks) {
  class Closed final : public ForwardingFiles {
    int flock(int fd, int operation) override {
      struct ::stat status {};
      EXPECT_EQ(::fstat(fd, &status), 0);
      errno = EBADF;
      return S_ISREG(status.st_mode) ? -1 : ForwardingFiles::flock(fd, operation);
    }
  } files;
  const auto one = sink(files, target());
  EXPECT_EQ(error_of([&] { (void)one->begin(Beginning::fresh); }).errno_value(), EBADF);
  one->abort();
  expect_nothing_left();
}

TEST_F(SinkFailure, AFailedRenameIsRecordedBeforeTheTemporaryIsRemoved) {
  // A successor that found `renaming` and no temporary would call the save committed, if an older
  // file has its name.
  Recording files("rename");
  const SaveTarget where = target();
  const auto one = sink(files, where, seam_modes().front());
  std::vector<CommitPhase> phases;
  ASSERT_TRUE(one->begin(Beginning::fresh));
  write_blocks(*one, bytes_, 16384, 0, block_count(bytes_.size(), 16384));
  EXPECT_EQ(error_of([&] {
              one->commit([&](CommitPhase phase, const std::string&) { phases.push_back(phase); });
            }).code(),
            ErrorCode::io);
  EXPECT_EQ(phases,
            (std::vector{CommitPhase::syncing, CommitPhase::renaming, CommitPhase::syncing}));
  EXPECT_TRUE(exists(where.directory + "/" + where.temporary_name));
  one->abort();
  expect_nothing_left();
}

TEST_F(SinkFailure, AFailedDirectorySyncIsAnErrorAndKeepsTheWholeFile) {
  Recording files("fsync directory");
  const SaveTarget where = target();
  const auto one = sink(files, where);
  EXPECT_EQ(error_of([&] { save_all(*one, bytes_, 16384); }).code(), ErrorCode::io);
  one->abort();
  EXPECT_EQ(contents(scratch_ / "run/step_1/checkpoint_0.pt"), bytes_);
}

TEST_F(SinkFailure, WhatIsSyncedIsOpenedBeforeTheFirstByte) {
  class ClosedLater final : public ForwardingFiles {
    int open(const std::string& path, int flags, mode_t mode) override {
      errno = EACCES;
      return written_ ? -1 : ForwardingFiles::open(path, flags, mode);
    }
    ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                   int rwf_flags) override {
      written_ = true;
      return ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
    }
    std::atomic<bool> written_ = false;
  };
  for (const WriteMode mode : seam_modes()) {
    ClosedLater files;
    save_all(*sink(files, target(), mode), bytes_, 16384);
    EXPECT_EQ(contents(scratch_ / "run/step_1/checkpoint_0.pt"), bytes_);
    std::filesystem::remove_all(scratch_ / "run");
  }
}

TEST_F(SinkFailure, ASuccessorThatFinishesARenameOpensThemAnew) {
  const SaveTarget where = target();
  ASSERT_EQ(where.missing_levels, 2U);
  save_all(*sink(system_files(), where), bytes_, 16384);
  Recording files;
  const auto next = sink(files, where);
  ASSERT_TRUE(next->begin(Beginning::renaming));
  EXPECT_NO_THROW(next->commit(kIgnorePhases));
  EXPECT_EQ(files.log(), std::vector<std::string>(3, "fsync directory"));
}

TEST_F(SinkFailure, ADirectoryThatIsMovedAwayMeanwhileFailsTheSave) {
  std::filesystem::create_directory(scratch_ / "run");
  const SaveTarget where = target();
  const auto one = sink(system_files(), where);
  ASSERT_TRUE(one->begin(Beginning::fresh));
  write_blocks(*one, bytes_, 16384, 0, block_count(bytes_.size(), 16384));
  std::filesystem::rename(scratch_ / "run", scratch_ / "elsewhere");
  const Error error = error_of([&] { one->commit(kIgnorePhases); });
  EXPECT_EQ(error.code(), ErrorCode::not_found) << error.what();
  one->abort();
  EXPECT_FALSE(exists(scratch_ / "run"));
  EXPECT_FALSE(exists(scratch_ / "elsewhere/step_1/checkpoint_0.pt"));
}

TEST_F(SinkFailure, ALinkToNothingThatComesIntoTheWayIsNamed) {
  for (const char* name : {"run", "run/step_1"}) {
    const SaveTarget where = target();
    std::filesystem::create_directories(std::filesystem::path(scratch_ / name).parent_path());
    std::filesystem::create_symlink("/nowhere/at all", scratch_ / name);
    const auto one = sink(system_files(), where);
    const Error error = error_of([&] { one->begin(Beginning::fresh); });
    EXPECT_EQ(error.code(), ErrorCode::not_found) << error.what();
    EXPECT_NE(error.cause().find(scratch_ / name + " is a symbolic link"), std::string::npos)
        << error.what();
    one->abort();
    EXPECT_TRUE(std::filesystem::is_symlink(scratch_ / name));
    std::filesystem::remove_all(scratch_ / "run");
  }
}

TEST_F(SinkFailure, AFullDiskIsReportedBeforeTheFirstByte) {
  for (const int error_number : {ENOSPC, EDQUOT, EFBIG}) {
    Recording files("fallocate", error_number);
    const SaveTarget where = target();
    const auto one = sink(files, where);
    EXPECT_EQ(error_of([&] { one->begin(Beginning::fresh); }).code(), ErrorCode::no_space);
    one->abort();
    expect_nothing_left();
  }
}

TEST_F(SinkFailure, ADiskThatCannotReserveIsWrittenAnyway) {
  for (const int error_number : {EOPNOTSUPP, ENOSYS}) {
    for (const WriteMode mode : seam_modes()) {
      Recording files("fallocate", error_number);
      const SaveTarget where = target();
      save_all(*sink(files, where, mode), bytes_, 16384);
      EXPECT_EQ(contents(scratch_ / "run/step_1/checkpoint_0.pt"), bytes_);
    }
  }
}

class FileSizeLimit {
 public:
  explicit FileSizeLimit(std::uint64_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const ::rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  ::rlimit before_{};
};

// With the default disposition of SIGXFSZ: a write too far would end this test.
TEST_P(SinkFailureOfModes, AFileSizeLimitIsRespectedBeforeTheFirstByte) {
  const FileSizeLimit limit(bytes_.size() - 1);
  const SaveTarget where = target();
  const auto one = sink(system_files(), where, GetParam());
  const Error error = error_of([&] { one->begin(Beginning::fresh); });
  EXPECT_EQ(error.code(), ErrorCode::no_space);
  EXPECT_NE(error.cause().find("RLIMIT_FSIZE"), std::string::npos);
  one->abort();
  expect_nothing_left();
}

TEST_F(SinkFailure, AFileSizeLimitDoesNotStopARenameThatWasRecorded) {
  const SaveTarget where = target();
  save_all(*sink(system_files(), where), bytes_, 16384);
  const FileSizeLimit limit(1);
  const auto next = sink(system_files(), where);
  ASSERT_TRUE(next->begin(Beginning::renaming));
  EXPECT_NO_THROW(next->commit(kIgnorePhases));
}

TEST_F(SinkFailure, AFileSizeLimitWithoutRoomForPaddingIsEnough) {
  const FileSizeLimit limit(bytes_.size());
  const SaveTarget where = target();
  save_all(*sink(system_files(), where), bytes_, 16384);
  EXPECT_EQ(contents(scratch_ / "run/step_1/checkpoint_0.pt"), bytes_);
}

TEST_F(SinkFailure, NonsenseConfigurationsAreRefused) {
  const SaveTarget where = target();
  const auto refused = [&](auto&& change) {
    CheckpointWriterConfig config;
    change(config);
    return error_of([&] { (void)make_file_sink(system_files(), config, where, nullptr); }).code();
  };
  EXPECT_EQ(refused([](auto& c) { c.queue_depth = 0; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& c) { c.queue_depth = 65; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& c) { c.threads = 0; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& c) { c.threads = 65; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& c) { c.busy_timeout_secs = -1; }), ErrorCode::invalid_argument);
  EXPECT_EQ(refused([](auto& c) { c.busy_timeout_secs = std::nan(""); }),
            ErrorCode::invalid_argument);
}

TEST_P(SinkFailureOfModes, ExtentsThatDoNotFitTheFileAreRefused) {
  const SaveTarget where = target();
  const auto one = sink(system_files(), where, GetParam());
  ASSERT_TRUE(one->begin(Beginning::fresh));
  AlignedBytes memory(8192);
  EXPECT_THROW(one->submit({1, 100, memory.data(), 4096, 4096}), Error);
  EXPECT_THROW(one->submit({1, 0, memory.data() + 8, 4096, 4096}), Error);
  EXPECT_THROW(one->submit({1, 0, memory.data(), 4095, 4095}), Error);
  EXPECT_THROW(one->submit({1, 98304, memory.data(), 4096, 4096}), Error);
  EXPECT_THROW(one->submit({1, 1U << 20, memory.data(), 4096, 4096}), Error);
  EXPECT_THROW(one->submit({1, 0, memory.data(), 0, 0}), Error);
  one->abort();
  expect_nothing_left();
}

// ── Against the real kernel, in a namespace of its own ──────────────────────────────────────────

std::string code_of_save(FileSystem& files, const std::string& directory,
                         const std::vector<std::byte>& bytes, WriteMode mode) {
  std::unique_ptr<SaveSink> one;
  try {
    const SaveTarget where = make_target(files, directory, {0, 1}, bytes.size());
    one = sink(files, where, mode);
    if (!one->begin(Beginning::fresh)) return "held elsewhere";
    write_blocks(*one, bytes, 16384, 0, block_count(bytes.size(), 16384));
    one->commit(kIgnorePhases);
    return "committed";
  } catch (const Error& error) {
    if (one) one->abort();
    return std::string(to_string(error.code()));
  }
}

TEST_F(SinkFailure, ARealFullDiskFailsWithNoSpaceAndLeavesNothing) {
  const InOwnMounts said = in_own_mounts([&]() -> std::string {
    mount_tmpfs(scratch_.path(), "size=64k");
    std::string code = code_of_save(system_files(), scratch_ / "a/b", bytes_, WriteMode::automatic);
    if (code != "no_space") return "the save: " + code;
    if (!tree(scratch_.path()).empty()) return "something was left";
    // The same without a reservation: the write itself finds out.
    Recording no_reserve("fallocate", EOPNOTSUPP);
    const std::string later =
        code_of_save(no_reserve, scratch_ / "a/b", bytes_, WriteMode::automatic);
    if (later != "no_space") return "the save without a reservation: " + later;
    return tree(scratch_.path()).empty() ? "" : "something was left by the second";
  });
  if (!said.refused.empty()) GTEST_SKIP() << said.refused;
  EXPECT_EQ(said.failure, "");
}

TEST_F(SinkFailure, ARealSmallDiskThatIsFullToAnyDegreeKeepsTheOldFileUntilASaveFits) {
  const InOwnMounts said = in_own_mounts([&]() -> std::string {
    mount_tmpfs(scratch_.path(), "size=4m,nr_inodes=8");
    // Pages for two files fit, those of a third do not; and a few names.
    const std::vector<std::byte> old_file = random_bytes(1'500'000, 1);
    const std::vector<std::byte> new_file = random_bytes(1'500'000, 2);
    const std::string where = scratch_ / "a/b";
    const std::string file = where + "/checkpoint_0.pt";
    int failed = 0;
    int written = 0;
    for (const bool reserve : {true, false}) {
      for (std::size_t filler = 0; filler <= 4'000'000; filler += 200'000) {
        // The file system itself says how much of it fits.
        std::filesystem::remove_all(scratch_ / "a");
        std::filesystem::remove(scratch_ / "filler");
        if (code_of_save(system_files(), where, old_file, WriteMode::automatic) != "committed") {
          return "the first save";
        }
        {
          std::ofstream out(scratch_ / "filler", std::ios::binary);
          const std::vector<char> zeros(filler);
          out.write(zeros.data(), static_cast<std::streamsize>(filler));
        }
        Recording no_reserve("fallocate", EOPNOTSUPP);
        FileSystem& files = reserve ? system_files() : static_cast<FileSystem&>(no_reserve);
        std::string code = code_of_save(files, where, new_file, WriteMode::automatic);
        const std::string after = "with a filler of " + std::to_string(filler) + ": ";
        if (code != "committed" && code != "no_space") return after + code;
        ++(code == "committed" ? written : failed);
        if (contents(file) != (code == "committed" ? new_file : old_file)) {
          return after + "neither the old file nor the new one";
        }
        if (tree(where) != std::vector<std::string>{"checkpoint_0.pt"}) {
          return after + "something was left";
        }
        std::filesystem::remove(scratch_ / "filler");
        if (code_of_save(system_files(), where, new_file, WriteMode::automatic) != "committed" ||
            contents(file) != new_file) {
          return after + "the next save";
        }
      }
    }
    if (failed < 10 || written < 10) return "it was not full, or always";
    // No room for names: a directory, the temporary.
    for (int names = 0; names <= 8; ++names) {
      std::filesystem::remove_all(scratch_ / "a");
      int made = 0;
      while (made < names && ::mkdir((scratch_ / std::to_string(made)).c_str(), 0700) == 0) ++made;
      std::string code = code_of_save(system_files(), where, new_file, WriteMode::automatic);
      const auto left = tree(scratch_.path());
      for (int i = 0; i < made; ++i) std::filesystem::remove(scratch_ / std::to_string(i));
      const std::string after = "beside " + std::to_string(made) + " names: ";
      if (code == "committed") {
        ++written;
        continue;
      }
      if (code != "no_space") return after + code;
      ++failed;
      if (left.size() != static_cast<std::size_t>(made)) return after + "something was left";
    }
    // Whatever went wrong has ended this already.
    ckptring::test::FaultRow{"disk: a small one, full to any degree",
                             static_cast<std::uint64_t>(failed + written)}
        .print();
    return "";
  });
  if (!said.refused.empty()) GTEST_SKIP() << said.refused;
  EXPECT_EQ(said.failure, "");
}

TEST_F(SinkFailure, ARealReadOnlyDiskFailsWithPermission) {
  const InOwnMounts said = in_own_mounts([&]() -> std::string {
    mount_tmpfs(scratch_.path(), "size=64k", MS_RDONLY);
    for (const char* where : {"", "/a/b"}) {
      std::string code =
          code_of_save(system_files(), scratch_.path() + where, bytes_, WriteMode::automatic);
      if (code != "permission") return code;
    }
    return "";
  });
  if (!said.refused.empty()) GTEST_SKIP() << said.refused;
  EXPECT_EQ(said.failure, "");
}

TEST_F(SinkFailure, ADirectoryWithoutPermissionFailsWithPermission) {
  const InOwnMounts said = in_own_mounts([&]() -> std::string {
    if (::geteuid() == 0 && (::chmod(scratch_.path().c_str(), 0755) != 0 || ::setuid(65534) != 0)) {
      return "become nobody";
    }
    std::error_code ignored;
    std::filesystem::permissions(scratch_.path(), std::filesystem::perms(0555), ignored);
    for (const char* where : {"", "/a/b"}) {
      std::string code =
          code_of_save(system_files(), scratch_.path() + where, bytes_, WriteMode::automatic);
      if (code != "permission") return code;
    }
    return "";
  });
  if (!said.refused.empty()) GTEST_SKIP() << said.refused;
  EXPECT_EQ(said.failure, "");
}

// Searched and written to, but not listed: as the root's, or another user's, may be.
TEST_F(SinkFailure, ADirectoryThatMayNotBeListedFailsTheSaveBeforeAnythingIsLeftInIt) {
  const InOwnMounts said = in_own_mounts([&]() -> std::string {
    if (::chmod(scratch_.path().c_str(), 0733) != 0) return "chmod";
    if (::geteuid() == 0 && ::setuid(65534) != 0) return "become nobody";
    for (const char* where : {"", "/step_1", "/a/b"}) {
      std::string code =
          code_of_save(system_files(), scratch_.path() + where, bytes_, WriteMode::automatic);
      if (code != "permission") return where + (": " + code);
    }
    return "";
  });
  std::filesystem::permissions(scratch_.path(), std::filesystem::perms(0700));
  if (!said.refused.empty()) GTEST_SKIP() << said.refused;
  EXPECT_EQ(said.failure, "");
  expect_nothing_left();
}

}  // namespace
}  // namespace ckptring::store::test
