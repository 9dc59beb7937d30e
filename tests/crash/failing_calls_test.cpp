// Each system call of a save on files fails once, or from then on, with each error that disks and
// file systems are known for. The save fails with words to act on, or gets over it; the trainer and
// the next save notice nothing.
#include "crash/crash_test.h"
#include "crash/traced_trainer.h"
#include "support/fault_row.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace ckptring::test {
namespace {

const std::map<long, std::string> kFileCalls{
    {SYS_openat, "openat"},
    {SYS_flock, "flock"},
    {SYS_mkdir, "mkdir"},
    {SYS_newfstatat, "newfstatat"},
    {SYS_getdents64, "getdents"},
    {SYS_fallocate, "fallocate"},
    {SYS_fcntl, "fcntl"},
    {SYS_fstatfs, "fstatfs"},
    {SYS_statx, "statx"},
    {SYS_pread64, "pread"},
    {SYS_pwrite64, "pwrite"},
    {SYS_pwritev2, "pwritev2"},
    {SYS_ftruncate, "ftruncate"},
    {SYS_fsync, "fsync"},
    {SYS_rename, "rename"},
    {SYS_unlink, "unlink"},
    {SYS_rmdir, "rmdir"},
    {SYS_io_uring_setup, "io_uring_setup"},
    {SYS_io_uring_enter, "io_uring_enter"},
    {SYS_eventfd2, "eventfd"},
    {SYS_clone3, "clone"},
};

/// stat answers "there is none" by this error; what would be there nevertheless is no fault that
/// exists.
bool is_an_answer(long number, int errno_value) {
  return number == SYS_newfstatat && errno_value == ENOENT;
}

constexpr std::array kErrors{ENOSPC,       EDQUOT,  EFBIG, EIO,    EROFS,  EACCES, ENOENT,
                             ENAMETOOLONG, ENOTDIR, EINTR, EAGAIN, EMFILE, ENFILE};

/// Whether a save may succeed although this call failed so: it was worth another attempt, or there
/// is another way.
bool may_get_over(long number, int errno_value) {
  switch (number) {
    case SYS_clone3:          // fewer threads
    case SYS_io_uring_setup:  // threads
    case SYS_statx:           // what alignment is good for writes past the page cache is tried out
      return true;
    case SYS_fsync:  // never a second time
      return false;
    case SYS_flock:
    case SYS_pwrite64:
    case SYS_pwritev2:
    case SYS_io_uring_enter:
      return errno_value == EINTR || errno_value == EAGAIN;
    case SYS_openat:
    case SYS_mkdir:
    case SYS_getdents64:  // somebody removed the directory; it is made again
      return errno_value == EINTR || errno_value == ENOENT;
    default:
      return errno_value == EINTR;
  }
}

/// One call of a save: the `nth` of its kind, from 0.
struct CallOfSave {
  long number;
  int nth;
};

/// Decides in the tracer's thread which call fails.
class FailingCalls {
 public:
  Script script() {
    return [this](const TracedCall& call) { return verdict(call); };
  }

  /// A save begins that is left alone.
  void leave_alone() { set({}); }
  void fail_once(CallOfSave call, int errno_value) {
    set({{call.number, {call.nth, errno_value, false}}});
  }
  void fail_from(CallOfSave call, int errno_value) {
    set({{call.number, {call.nth, errno_value, true}}});
  }
  /// One call fails once, and those that would undo the save every time.
  void fail_and_not_undo(CallOfSave call, int errno_value, int errno_of_undoing) {
    set({{call.number, {call.nth, errno_value, false}},
         {SYS_unlink, {0, errno_of_undoing, true}},
         {SYS_rmdir, {0, errno_of_undoing, true}}});
  }

  /// Of the save since the last of the above, in order.
  std::vector<CallOfSave> calls() const {
    const std::scoped_lock lock(mutex_);
    return calls_;
  }
  bool failed(long number) const {
    const std::scoped_lock lock(mutex_);
    return failed_.contains(number);
  }

 private:
  struct Failure {
    int nth;
    int errno_value;
    bool from_then_on;
  };

  /// @param failures by the call's number
  void set(std::map<long, Failure> failures) {
    const std::scoped_lock lock(mutex_);
    failures_ = std::move(failures);
    failed_.clear();
    calls_.clear();
    counts_.clear();
  }

  Verdict verdict(const TracedCall& call) {
    if (!call.entering || !kFileCalls.contains(call.number)) return Verdict::go_on();
    const std::scoped_lock lock(mutex_);
    const int nth = counts_[call.number]++;
    calls_.push_back({call.number, nth});
    const auto failure = failures_.find(call.number);
    if (failure == failures_.end() || nth < failure->second.nth ||
        (nth > failure->second.nth && !failure->second.from_then_on)) {
      return Verdict::go_on();
    }
    failed_.insert(call.number);
    return Verdict::fail(failure->second.errno_value);
  }

  mutable std::mutex mutex_;
  std::map<long, Failure> failures_;
  std::set<long> failed_;
  std::vector<CallOfSave> calls_;
  std::map<long, int> counts_;
};

class FailingCallsTest : public OfTracedTrainers<CrashTestOfModes> {
 protected:
  FailingCallsTest() {
    for (std::size_t i = 0; i < 2; ++i) {
      expected_[i] = undisturbed_file(directory_ / "expected", storages_[i]);
    }
  }

  static CheckpointerConfig config() {
    CheckpointerConfig config = small_config(GetParam(), 4);
    config.writer_config.busy_timeout_secs = 10;
    return config;
  }

  /// Trainer and helper, which has written its first save.
  void start(TracedTrainer& trainer) {
    trainer.meet_new_helper();
    trainer.tracer().release({failing_.script()});
    save_well(trainer, 0);
    process_ = trainer.async().process_id();
  }

  void save_well(TracedTrainer& trainer, std::size_t which) {
    failing_.leave_alone();
    const SaveHandle save = trainer.async().submit(job_for(path_, storages_[which]));
    try {
      save.written.get();
    } catch (const std::exception& error) {
      ADD_FAILURE() << "the next save failed too: " << error.what();
      ++row_.lost;
    }
    if (seen() != expected_[which]) ++row_.lost;
    old_ = which;
  }

  std::string seen() const { return contents_of(path_ + "/checkpoint_0.pt"); }

  /// A save whose call fails as `failing_` was told, then one that is left alone.
  void save_badly(TracedTrainer& trainer, CallOfSave call, int errno_value, bool fresh) {
    SCOPED_TRACE(kFileCalls.at(call.number) + " number " + std::to_string(call.nth) + ": " +
                 std::generic_category().message(errno_value));
    ++row_.cases;
    const std::size_t which = 1 - old_;
    const std::string path = fresh ? directory_ / "fresh/deep" : path_;
    const SaveHandle save = trainer.async().submit(job_for(path, storages_[which]));
    const std::exception_ptr error = save.written.error();
    EXPECT_TRUE(failing_.failed(call.number)) << "the call was not made";
    const std::uint64_t lost_before = row_.lost;
    const std::string now = contents_of(path + "/checkpoint_0.pt");
    if (!error) {
      ++survived_;
      EXPECT_TRUE(may_get_over(call.number, errno_value)) << "the failure was ignored";
      if (!may_get_over(call.number, errno_value)) ++row_.lost;
      if (now != expected_[which]) ++row_.lost;
    } else {
      try {
        std::rethrow_exception(error);
      } catch (const Error& failure) {
        const bool named =
            !failure.operation().empty() && failure.path().starts_with(directory_.path()) &&
            failure.cause().find(std::generic_category().message(errno_value)) !=
                std::string::npos &&
            (failure.errno_value() == errno_value || failure.code() == ErrorCode::invalid_argument);
        EXPECT_TRUE(named) << failure.what() << " (errno " << failure.errno_value() << ")";
        if (!named) ++row_.lost;
      }
      // After the rename the new file may be there, and it is whole.
      const bool whole = now == expected_[which] || now == (fresh ? "" : expected_[old_]);
      EXPECT_TRUE(whole);
      if (!whole) ++row_.torn;
    }
    if (!fresh) {
      EXPECT_EQ(entries_of(path_), 1) << "a temporary is left";
    } else if (error && now.empty()) {
      EXPECT_FALSE(std::filesystem::exists(directory_ / "fresh")) << "directories are left";
    }
    std::filesystem::remove_all(directory_ / "fresh");
    EXPECT_EQ(trainer.async().process_id(), process_) << "the process did not survive";
    EXPECT_EQ(row_.lost, lost_before);
    save_well(trainer, 1 - old_);
    trainer.tracer().check();
  }

  /// What the undisturbed save calls.
  std::vector<CallOfSave> calls_of_a_save(TracedTrainer& trainer, const std::string& path) {
    failing_.leave_alone();
    trainer.async().submit(job_for(path, storages_[1 - old_])).written.get();
    std::vector<CallOfSave> all = failing_.calls();
    totals_.clear();
    for (const CallOfSave& call : all) ++totals_[call.number];
    if (path == path_) old_ = 1 - old_;
    std::filesystem::remove_all(directory_ / "fresh");
    return all;
  }

  /// What disks say is tried at every call; other errors, in long series, at the first call, one in
  /// the middle and the last.
  bool is_tried(const CallOfSave& call, int errno_value) {
    if (is_an_answer(call.number, errno_value)) return false;
    const int total = totals_[call.number];
    return total <= 6 || call.nth == 0 || call.nth == total / 2 || call.nth == total - 1 ||
           errno_value == ENOSPC || errno_value == EDQUOT || errno_value == EIO;
  }

  const std::string path_ = directory_ / "run";
  const std::array<std::shared_ptr<Storages>, 2> storages_{noise({120'000, 7}, 1),
                                                           noise({60'000, 60'007}, 2)};
  std::array<std::string, 2> expected_;
  FailingCalls failing_;
  std::map<long, int> totals_;  ///< calls of each kind in an undisturbed save
  FaultRow row_;
  std::size_t old_ = 0;
  int process_ = 0;
  std::uint64_t survived_ = 0;
};

/// Calls that the modes have in common are tried in one of them.
bool belongs(long number, WriteMode mode) {
  static const std::set<long> own{SYS_pwritev2,       SYS_fallocate,      SYS_ftruncate,
                                  SYS_io_uring_setup, SYS_io_uring_enter, SYS_statx};
  return mode == WriteMode::direct_threads || own.contains(number);
}

TEST_P(FailingCallsTest, OnceFailTheSaveWithTheCauseOrNotAtAll) {
  row_.fault = "a call fails once, " + name_of(GetParam());
  TracedTrainer trainer(config());
  start(trainer);
  for (const CallOfSave call : calls_of_a_save(trainer, path_)) {
    if (!belongs(call.number, GetParam())) continue;
    for (const int errno_value : kErrors) {
      if (!is_tried(call, errno_value)) continue;
      failing_.fail_once(call, errno_value);
      save_badly(trainer, call, errno_value, false);
      ASSERT_LT(row_.lost, 10u);
    }
  }
  trainer.close();
  row_.report();
  std::printf("of these, %ju got over it\n", static_cast<std::uintmax_t>(survived_));
}

TEST_P(FailingCallsTest, FromThenOnFailTheSaveWithTheCause) {
  row_.fault = "a call fails from then on, " + name_of(GetParam());
  TracedTrainer trainer(config());
  start(trainer);
  for (const CallOfSave call : calls_of_a_save(trainer, path_)) {
    if (!belongs(call.number, GetParam()) || call.nth > 2) continue;
    for (const int errno_value : {ENOSPC, EIO, EROFS}) {
      failing_.fail_from(call, errno_value);
      save_badly(trainer, call, errno_value, false);
      ASSERT_LT(row_.lost, 10u);
    }
  }
  trainer.close();
  row_.report();
}

INSTANTIATE_TEST_SUITE_P(WriteModes, FailingCallsTest, write_modes(), mode_of_test);

using FailingDirectories = FailingCallsTest;

TEST_P(FailingDirectories, AreNamedAndThoseThatWereMadeAreRemoved) {
  row_.fault = "a call fails while directories are made";
  TracedTrainer trainer(config());
  start(trainer);
  for (const CallOfSave call : calls_of_a_save(trainer, directory_ / "fresh/deep")) {
    if (call.number != SYS_mkdir && call.number != SYS_openat && call.number != SYS_fsync) continue;
    for (const int errno_value : kErrors) {
      failing_.fail_once(call, errno_value);
      save_badly(trainer, call, errno_value, true);
      ASSERT_LT(row_.lost, 10u);
    }
  }
  trainer.close();
  row_.report();
}

INSTANTIATE_TEST_SUITE_P(Threads, FailingDirectories, ::testing::Values(WriteMode::direct_threads),
                         mode_of_test);

using NotUndone = FailingCallsTest;

/// A disk on which nothing can be removed any more either.
TEST_P(NotUndone, ASaveFailsWithItsFirstErrorAndTheNextOneRemovesWhatIsLeft) {
  row_.fault = "a call fails, and the save cannot be undone";
  TracedTrainer trainer(config());
  start(trainer);
  for (const bool fresh : {false, true}) {
    const std::string path = fresh ? directory_ / "fresh/deep" : path_;
    for (const int errno_value : {EIO, EROFS, EACCES}) {
      SCOPED_TRACE(std::generic_category().message(errno_value));
      ++row_.cases;
      // EDQUOT, so that the two can be told apart.
      failing_.fail_and_not_undo({SYS_fsync, 0}, EDQUOT, errno_value);
      const SaveHandle save = trainer.async().submit(job_for(path, storages_[1 - old_]));
      const std::exception_ptr error = save.written.error();
      try {
        if (error) std::rethrow_exception(error);
        ADD_FAILURE() << "written";
        ++row_.lost;
      } catch (const Error& failure) {
        EXPECT_EQ(failure.errno_value(), EDQUOT) << failure.what();
      }
      if (seen() != expected_[old_]) ++row_.torn;
      EXPECT_TRUE(failing_.failed(SYS_unlink)) << "nothing was to be undone";
      failing_.leave_alone();
      const SaveHandle next = trainer.async().submit(job_for(path, storages_[old_]));
      if (next.written.error()) ++row_.lost;
      EXPECT_EQ(entries_of(path), 1) << "a temporary is left";
      std::filesystem::remove_all(directory_ / "fresh");
      trainer.tracer().check();
    }
  }
  trainer.close();
  row_.report();
}

INSTANTIATE_TEST_SUITE_P(Threads, NotUndone, ::testing::Values(WriteMode::direct_threads),
                         mode_of_test);

using FileSizeLimit = FailingCallsTest;

/// The helper's own limit, which it would get from the trainer: the kernel refuses, and sends a
/// signal besides.
TEST_P(FileSizeLimit, BeforeOrInTheMiddleOfASaveFailsItForWantOfSpace) {
  row_.fault = "RLIMIT_FSIZE, " + name_of(GetParam());
  const std::set<long> writes{SYS_io_uring_enter, SYS_pwrite64, SYS_pwritev2};
  TracedTrainer trainer(config());
  std::atomic<int> limited_at{-1};  // the write before which the limit falls, from 0; -1: none
  std::atomic<int> write{0};
  const auto limit_to = [](pid_t process, ::rlim_t bytes) {
    const ::rlimit limit{bytes, RLIM_INFINITY};
    return ::prlimit(process, RLIMIT_FSIZE, &limit, nullptr) == 0;
  };
  trainer.meet_new_helper();
  trainer.tracer().release({[&](const TracedCall& call) {
    if (call.entering && writes.contains(call.number) && write++ == limited_at) {
      (void)limit_to(call.process, kSmallBlock);
    }
    return Verdict::go_on();
  }});
  save_well(trainer, 0);
  process_ = trainer.async().process_id();
  for (const int at : {-1, 0, 1, 3}) {
    SCOPED_TRACE("before write " + std::to_string(at));
    ++row_.cases;
    if (at < 0) {
      ASSERT_TRUE(limit_to(process_, kSmallBlock));
    }
    write = 0;
    limited_at = at;
    const SaveHandle save = trainer.async().submit(job_for(path_, storages_[1 - old_]));
    try {
      (void)save.written.get();
      ADD_FAILURE() << "written beyond the limit";
      ++row_.lost;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::no_space) << error.what();
      EXPECT_EQ(error.errno_value(), EFBIG) << error.what();
    }
    limited_at = -1;
    if (seen() != expected_[old_]) ++row_.torn;
    EXPECT_EQ(entries_of(path_), 1);
    EXPECT_EQ(trainer.async().process_id(), process_) << "the signal ended it";
    ASSERT_TRUE(limit_to(process_, RLIM_INFINITY));
    save_well(trainer, 1 - old_);
    trainer.tracer().check();
  }
  trainer.close();
  row_.report();
}

INSTANTIATE_TEST_SUITE_P(WriteModes, FileSizeLimit, write_modes(), mode_of_test);

using RefusedIoUring = FailingCallsTest;

TEST_P(RefusedIoUring, FallsBackToThreads) {
  const std::string refusal = refusal_of(WriteMode::direct_io_uring);
  if (!refusal.empty()) GTEST_SKIP() << refusal;
  row_.fault = "io_uring is refused";
  TracedTrainer trainer(config());
  start(trainer);
  for (const int errno_value : {EPERM, ENOSYS, ENOMEM, EMFILE}) {
    failing_.fail_from({SYS_io_uring_setup, 0}, errno_value);
    save_badly(trainer, {SYS_io_uring_setup, 0}, errno_value, false);
  }
  EXPECT_EQ(survived_, row_.cases);
  trainer.close();
  row_.report();
}

INSTANTIATE_TEST_SUITE_P(Automatic, RefusedIoUring, ::testing::Values(WriteMode::automatic),
                         mode_of_test);

}  // namespace
}  // namespace ckptring::test
