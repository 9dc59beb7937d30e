#include "save/async_save.h"

#include "os/huge_memory.h"
#include "os/memory_left.h"
#include "save/sync_save.h"
#include "support/forked.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>

namespace ckptring::save {
namespace {

using test::contents_of;
using test::job_for;
using test::noise;

/// A directory that cannot be made, whoever asks for it.
const std::string kUnwritable = "/proc/ckptring-test/run";

CheckpointerConfig small_ring(std::uint64_t blocks = 4) {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = blocks * (64 << 10);
  return config;
}

CheckpointerConfig automatic_ring() {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  return config;
}

ErrorCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::ok;
}

std::string file_of_sync_save(const test::TemporaryDirectory& directory,
                              std::shared_ptr<test::Storages> storages) {
  SyncSave sync({}, {}, {});
  (void)sync.run(job_for(directory / "sync", std::move(storages)));
  return contents_of(directory / "sync/checkpoint_0.pt");
}

TEST(AsyncSave, WritesTheSameFileAsTheSyncPathThroughARingMuchSmallerThanTheFile) {
  const test::TemporaryDirectory directory;
  const auto storages = noise({1, 0, 100'000, 3'000'000, 77}, 1);
  const std::string expected = file_of_sync_save(directory, storages);
  ASSERT_GT(expected.size(), 3'100'000u);
  AsyncSave async(small_ring(), {});
  const SaveHandle save = async.submit(job_for(directory / "async", storages));
  const SaveReport report = save.written.get();
  EXPECT_EQ(report.bytes, expected.size());
  EXPECT_EQ(report.path, directory / "async/checkpoint_0.pt");
  EXPECT_TRUE(contents_of(report.path) == expected);
}

TEST(AsyncSave, StagesSoThatTheStorageMayChangeOnceStaged) {
  const test::TemporaryDirectory directory;
  const auto storages = noise({500'000, 500'000}, 2);
  const std::string expected = file_of_sync_save(directory, storages);
  AsyncSave async(automatic_ring(), {});
  const SaveHandle save = async.submit(job_for(directory / "async", storages));
  save.staged.get();
  for (auto& storage : *storages) std::fill(storage.begin(), storage.end(), std::byte{0xee});
  save.written.get();
  EXPECT_TRUE(contents_of(directory / "async/checkpoint_0.pt") == expected);
}

TEST(AsyncSave, LetsTheTensorsGoBeforeItSaysStaged) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  SaveJob job = job_for(directory / "run", noise({100'000}, 1));
  Promise<Future<void>> staged;
  Promise<bool> was_staged;
  // Whoever drops the job's tensors looks whether `staged` is ready already.
  job.keep_alive = std::shared_ptr<void>(
      job.keep_alive.get(), [storages = job.keep_alive, &was_staged, known = staged.future()](
                                void*) { was_staged.set_value(known.get().ready()); });
  const SaveHandle save = async.submit(std::move(job));
  staged.set_value(save.staged);
  EXPECT_FALSE(was_staged.future().get());
  save.written.get();
}

TEST(AsyncSave, CommitsManySavesOneAfterTheOther) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = small_ring();
  config.max_saves_in_flight = 3;
  AsyncSave async(config, {});
  std::vector<SaveHandle> saves;
  saves.reserve(40);
  for (int i = 0; i < 40; ++i) {
    saves.push_back(async.submit(job_for(directory / std::to_string(i),
                                         noise({300'000, 17}, 100 + static_cast<unsigned>(i)))));
  }
  for (const SaveHandle& save : saves) EXPECT_NO_THROW(save.written.get());
  SyncSave sync({}, {}, {});
  for (const int i : {0, 7, 39}) {
    (void)sync.run(
        job_for(directory / "sync", noise({300'000, 17}, 100 + static_cast<unsigned>(i))));
    EXPECT_TRUE(contents_of(directory / (std::to_string(i) + "/checkpoint_0.pt")) ==
                contents_of(directory / "sync/checkpoint_0.pt"));
  }
}

TEST(AsyncSave, TakesSavesFromTwoThreadsOneAfterTheOther) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = small_ring();
  config.max_saves_in_flight = 3;
  AsyncSave async(config, {});
  std::vector<std::thread> threads;
  for (const unsigned thread : {1u, 2u}) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 20; ++i) {
        async.check_usable();
        const SaveHandle save = async.submit(
            job_for(directory / std::to_string(thread), noise({200'000, 3}, 100 * thread)));
        save.staged.get();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(
      async.wait_written(std::chrono::steady_clock::now() + std::chrono::seconds(60)).empty());
  for (const unsigned thread : {1u, 2u}) {
    EXPECT_TRUE(contents_of(directory / (std::to_string(thread) + "/checkpoint_0.pt")) ==
                file_of_sync_save(directory, noise({200'000, 3}, 100 * thread)));
  }
}

TEST(AsyncSave, ReplacesTheFileOfAnEarlierSaveInOneStep) {
  const test::TemporaryDirectory directory;
  AsyncSave async(automatic_ring(), {});
  async.submit(job_for(directory / "run", noise({100'000}, 3))).written.get();
  const auto second = noise({200'000}, 4);
  async.submit(job_for(directory / "run", second)).written.get();
  EXPECT_TRUE(contents_of(directory / "run/checkpoint_0.pt") ==
              file_of_sync_save(directory, second));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory / "run"), {}), 1)
      << "a temporary was left behind";
}

TEST(AsyncSave, RemakesTheAutomaticRingForALargerFile) {
  const test::TemporaryDirectory directory;
  AsyncSave async(automatic_ring(), {});
  async.ready();
  const int first_process = async.process_id();
  async.submit(job_for(directory / "small", noise({100}, 5))).written.get();
  EXPECT_EQ(async.process_id(), first_process) << "two blocks hold the small file";
  const auto large = noise({30'000'000}, 6);
  async.submit(job_for(directory / "large", large)).written.get();
  EXPECT_NE(async.process_id(), first_process);
  EXPECT_TRUE(contents_of(directory / "large/checkpoint_0.pt") ==
              file_of_sync_save(directory, large));
}

TEST(AsyncSave, KeepsItsRingIfOnlyALittleMoreMemoryIsLeftNow) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = automatic_ring();
  config.process_config.block_bytes = 4096;
  // A share of some MiB, so that the ring is smaller than the file.
  const std::uint64_t left = os::memory_left().bytes;
  config.process_config.ranks_on_node = static_cast<int>((left >> 24) + 1);
  AsyncSave async(config, {});
  const auto larger_than_the_ring = noise({12'000'000}, 6);
  int process = 0;
  {
    const os::HugeMemory held(std::min<std::size_t>(left / 32, 2ull << 30));
    std::ranges::fill(held.bytes(), std::byte{1});
    async.submit(job_for(directory / "run", larger_than_the_ring)).written.get();
    process = async.process_id();
  }
  async.submit(job_for(directory / "run", larger_than_the_ring)).written.get();
  EXPECT_EQ(async.process_id(), process) << "another ring, and with it another process";
}

TEST(AsyncSave, IsReadyWheneverItIsAskedAlsoWhileTheRingIsRemade) {
  const test::TemporaryDirectory directory;
  const auto large = noise({30'000'000}, 6);
  for (int i = 0; i < 10; ++i) {
    AsyncSave async(automatic_ring(), {});
    const SaveHandle save = async.submit(job_for(directory / "run", large));
    EXPECT_NO_THROW(async.ready());
    async.wait_prefaulted();
    EXPECT_NO_THROW(save.written.get());
  }
}

TEST(AsyncSave, PreparesWhileAnotherThreadSaves) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = automatic_ring();
  config.process_config.block_bytes = 64 << 10;
  config.max_saves_in_flight = 2;
  AsyncSave async(config, {});
  std::atomic<bool> prepared = false;
  std::thread saving([&] {
    for (unsigned i = 0; !prepared; ++i) {
      (void)async.submit(job_for(directory / "run", noise({1000}, i)));
    }
  });
  for (std::uint64_t mebibytes = 1; mebibytes < 20; ++mebibytes) {
    async.prepare(job_for("", noise({mebibytes << 20}, 1)));  // larger than the ring so far
  }
  prepared = true;
  saving.join();
  async.close();
}

TEST(AsyncSave, RefusesToPrepareWhileItIsClosed) {
  for (int i = 0; i < 20; ++i) {
    AsyncSave async(small_ring(), {});
    std::thread closing([&] { async.close(); });
    const SaveJob job = job_for("", noise({1000}, 1));
    while (code_of([&] { async.prepare(job); }) == ErrorCode::ok) {
    }
    closing.join();
    EXPECT_EQ(code_of([&] { async.prepare(job); }), ErrorCode::closed);
  }
}

TEST(AsyncSave, FailsOnlyTheSaveWhoseFileCannotBeWritten) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  const SaveHandle failing = async.submit(job_for(kUnwritable, noise({1'000'000}, 7)));
  // Sixteen blocks do not fit into a ring of four, so it was not staged either.
  const ErrorCode cause = code_of([&] { failing.written.get(); });
  EXPECT_NE(cause, ErrorCode::ok);
  EXPECT_EQ(code_of([&] { failing.staged.get(); }), cause);
  EXPECT_NO_THROW(async.submit(job_for(directory / "good", noise({1'000'000}, 8))).written.get());
}

TEST(AsyncSave, ThatIsStagedSaysSoThoughItsFileCannotBeWritten) {
  CheckpointerConfig config = automatic_ring();
  config.process_config.stopped_timeout_secs = 120;
  AsyncSave async(config, {});
  async.ready();
  const int process = async.process_id();
  ASSERT_EQ(::kill(process, SIGSTOP), 0);
  const SaveHandle failing = async.submit(job_for(kUnwritable, noise({100'000}, 7)));
  EXPECT_NO_THROW(failing.staged.get());
  ASSERT_EQ(::kill(process, SIGCONT), 0);
  EXPECT_NE(code_of([&] { failing.written.get(); }), ErrorCode::ok);
}

TEST(AsyncSave, RefusesAPathThatIsAFileAtOnce) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  std::ofstream(directory / "file") << "not a directory";
  EXPECT_EQ(code_of([&] { (void)async.submit(job_for(directory / "file", noise({1}, 7))); }),
            ErrorCode::invalid_argument);
  EXPECT_NO_THROW(async.submit(job_for(directory / "good", noise({1}, 8))).written.get());
}

TEST(AsyncSave, HandsAnUnfetchedFailureOverOnce) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  async.submit(job_for(kUnwritable, noise({1000}, 9))).written.wait();
  const SaveHandle next = async.submit(job_for(directory / "good", noise({1000}, 10)));
  ASSERT_NE(next.previous_failure, nullptr);
  EXPECT_THROW(std::rethrow_exception(next.previous_failure), Error);
  next.written.get();
  EXPECT_EQ(async.submit(job_for(directory / "good", noise({1000}, 11))).previous_failure, nullptr);
}

TEST(AsyncSave, ThrowsAnUnfetchedFailureFromTheNextSaveIfConfigured) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = small_ring();
  config.throw_previous_failure = true;
  AsyncSave async(config, {});
  async.submit(job_for(kUnwritable, noise({1000}, 9)));
  EXPECT_THROW(async.check_usable(), Error);
  EXPECT_NO_THROW(async.check_usable());
  EXPECT_NO_THROW(async.submit(job_for(directory / "good", noise({1000}, 10))).written.get());
}

TEST(AsyncSave, UndoesASaveWhoseStateChangedWhileItWasStaged) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  SaveJob job = job_for(directory / "new/deep/run", noise({2'000'000}, 12));
  job.check_unchanged = [](int, const Captured&) {
    throw Error(ErrorCode::changed_while_staging, "save key t0 of", "run", "it was modified");
  };
  const SaveHandle save = async.submit(std::move(job));
  EXPECT_EQ(code_of([&] { save.staged.get(); }), ErrorCode::changed_while_staging);
  EXPECT_EQ(code_of([&] { save.written.get(); }), ErrorCode::changed_while_staging);
  EXPECT_FALSE(std::filesystem::exists(directory / "new")) << "directories of an undone save stay";
  EXPECT_NO_THROW(async.submit(job_for(directory / "good", noise({2'000'000}, 13))).written.get());
}

TEST(AsyncSave, ReportsAMissingHelperByReadyAndBySaves) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = small_ring();
  config.process_config.executable = directory / "no-such-program";
  AsyncSave async(config, {});
  EXPECT_EQ(code_of([&] { async.ready(); }), ErrorCode::process_failed);
  const SaveHandle save = async.submit(job_for(directory / "run", noise({1'000'000}, 14)));
  try {
    save.written.get();
    FAIL() << "a save without a checkpoint process";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::process_failed);
    EXPECT_NE(std::string(error.what()).find("no-such-program"), std::string::npos) << error.what();
  }
}

TEST(AsyncSave, ReportsAHelperThatIsNone) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = small_ring();
  config.process_config.executable = "/bin/false";
  config.process_config.max_restarts = 2;
  AsyncSave async(config, {});
  EXPECT_EQ(code_of([&] { async.ready(); }), ErrorCode::process_failed);
}

TEST(AsyncSave, FailsAfterTheTimeOutIfTheHelperNeverBecomesReady) {
  const test::TemporaryDirectory directory;
  // One that hangs is not started again; several attempts have no longer than one.
  for (const char* script : {"exec sleep 1000", "sleep 0.1; exit 1"}) {
    CheckpointerConfig config = small_ring();
    std::ofstream(directory / "starts").close();
    std::ofstream(directory / "program") << "#!/bin/sh\necho >> " << directory / "starts"
                                         << "\n"
                                         << script << "\n";
    std::filesystem::permissions(directory / "program", std::filesystem::perms::owner_all);
    config.process_config.executable = directory / "program";
    // The pauses between attempts grow to 1.
    config.process_config.subprocess_init_timeout_secs = 3;
    config.process_config.max_restarts = 1000;
    AsyncSave async(config, {});
    try {
      async.ready();
      FAIL() << "it is not ready";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::process_failed);
      EXPECT_NE(error.cause().find("did not become ready within 3 s"), std::string::npos)
          << error.what();
    }
    const auto starts = contents_of(directory / "starts").size();
    EXPECT_TRUE(script[0] == 'e' ? starts == 1 : starts > 1) << starts;
  }
}

TEST(AsyncSave, CloseFinishesWhatWasBegunAndRefusesFurtherUse) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  const SaveHandle save = async.submit(job_for(directory / "run", noise({5'000'000}, 15)));
  async.close();
  EXPECT_TRUE(save.written.ready());
  EXPECT_NO_THROW(save.written.get());
  async.close();
  EXPECT_EQ(code_of([&] { async.check_usable(); }), ErrorCode::closed);
  EXPECT_EQ(code_of([&] { async.ready(); }), ErrorCode::closed);
  EXPECT_EQ(code_of([&] { async.wait_prefaulted(); }), ErrorCode::closed);
  EXPECT_EQ(code_of([&] { (void)async.wait_written({}); }), ErrorCode::closed);
  EXPECT_EQ(async.process_id(), 0);
}

TEST(AsyncSave, DestructionLeavesTheSaveToTheCheckpointProcess) {
  const test::TemporaryDirectory directory;
  const auto storages = noise({4'000'000}, 16);
  const std::string expected = file_of_sync_save(directory, storages);
  Future<SaveReport> written;
  int process = 0;
  {
    AsyncSave async(automatic_ring(), {});
    const SaveHandle save = async.submit(job_for(directory / "run", storages));
    written = save.written;
    save.staged.wait();
    async.ready();
    process = async.process_id();
  }
  ASSERT_TRUE(written.ready());
  // Committed just before, or left to finish; never failed, never lost.
  if (written.error()) {
    EXPECT_EQ(code_of([&] { written.get(); }), ErrorCode::outcome_unknown);
  }
  while (process != 0 && ::kill(process, 0) == 0) std::this_thread::yield();
  EXPECT_TRUE(contents_of(directory / "run/checkpoint_0.pt") == expected);
}

TEST(AsyncSave, DestructionGivesUpWhatIsNotStaged) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config = small_ring();
  config.process_config.stopped_timeout_secs = 120;
  config.process_config.subprocess_shutdown_timeout_secs = 0.3;
  SaveHandle save;
  int process = 0;
  {
    AsyncSave async(config, {});
    async.ready();
    process = async.process_id();
    ASSERT_EQ(::kill(process, SIGSTOP), 0);
    save = async.submit(job_for(directory / "run", noise({1'000'000}, 16)));
  }
  EXPECT_EQ(code_of([&] { save.staged.get(); }), ErrorCode::aborted);
  EXPECT_EQ(code_of([&] { save.written.get(); }), ErrorCode::aborted);
  ASSERT_EQ(::kill(process, SIGCONT), 0);
  while (::kill(process, 0) == 0) std::this_thread::yield();
  EXPECT_FALSE(std::filesystem::exists(directory / "run/checkpoint_0.pt"));
}

/// In a process of its own: what is left behind stays until that ends.
[[noreturn]] void prepare_behind_what_never_ends() {
  {
    const test::TemporaryDirectory directory;
    CheckpointerConfig config = small_ring();
    config.process_config.subprocess_shutdown_timeout_secs = 0.2;
    AsyncSave async(config, {});
    const auto let_go = std::make_shared<Promise<void>>();
    SaveJob hangs = job_for(directory / "run", noise({1000}, 17));
    hangs.check_unchanged = [end = let_go->future()](int, const Captured&) { end.wait(); };
    const SaveHandle save = async.submit(std::move(hangs));
    ErrorCode of_prepare = ErrorCode::ok;
    std::thread prepares([&] {
      of_prepare =
          code_of([&] { (void)async.prepare(job_for(directory / "run", noise({2000}, 18))); });
    });
    // Until it waits, as a rule.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    async.close();
    prepares.join();
    EXPECT_TRUE(of_prepare == ErrorCode::aborted || of_prepare == ErrorCode::closed);
    EXPECT_EQ(code_of([&] { save.written.get(); }), ErrorCode::aborted);
    let_go->set_value();
  }
  (void)std::fflush(nullptr);
  std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
}

TEST(AsyncSaveDeathTest, APrepareBehindWhatNeverEndsEndsWithTheCheckpointer) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(prepare_behind_what_never_ends(), ::testing::ExitedWithCode(0), "");
}

TEST(AsyncSave, WaitWrittenNamesWhatIsNotDurable) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  async.submit(job_for(directory / "good", noise({1000}, 17)));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  EXPECT_TRUE(async.wait_written(deadline).empty());
  async.submit(job_for(kUnwritable, noise({1000}, 18)));
  const auto unwritten = async.wait_written(deadline);
  ASSERT_EQ(unwritten.size(), 1u);
  EXPECT_EQ(unwritten[0].path, std::string(kUnwritable) + "/checkpoint_0.pt");
  EXPECT_NE(unwritten[0].error, nullptr);
  EXPECT_TRUE(async.wait_written(deadline).empty()) << "it was told";
}

TEST(AsyncSave, WaitWrittenKeepsOnlyTheNewestOfVeryManyFailures) {
  const test::TemporaryDirectory directory;
  std::filesystem::create_symlink("loop", directory / "loop");  // fails before anything is begun
  AsyncSave async(small_ring(), {});
  const auto storages = noise({1}, 17);
  for (int i = 0; i < 1010; ++i) {
    (void)async.submit(job_for(directory / ("loop/" + std::to_string(i)), storages))
        .written.error();
  }
  const auto unwritten = async.wait_written(std::chrono::steady_clock::now());
  ASSERT_EQ(unwritten.size(), 1000u);
  EXPECT_EQ(unwritten.front().path, directory / "loop/10");
  EXPECT_EQ(unwritten.back().path, directory / "loop/1009");
}

TEST(AsyncSave, WaitWrittenNamesWhatFailedBeforeWhoeverKnowsOfIt) {
  const test::TemporaryDirectory directory;
  AsyncSave async(small_ring(), {});
  EXPECT_NE(async.submit(job_for(kUnwritable, noise({1000}, 17))).written.error(), nullptr);
  async.submit(job_for(kUnwritable, noise({1000}, 18))).written.wait();
  const SaveHandle last = async.submit(job_for(directory / "good", noise({1000}, 19)));
  EXPECT_NE(last.previous_failure, nullptr);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  EXPECT_EQ(async.wait_written(deadline).size(), 2u);
  EXPECT_TRUE(last.written.ready());
}

using Descriptors = std::array<bool, 200>;

Descriptors open_descriptors() {
  Descriptors open{};
  for (std::size_t fd = 0; fd < open.size(); ++fd) {
    open[fd] = ::fcntl(static_cast<int>(fd), F_GETFD) >= 0;
  }
  return open;
}

/// In a forked child, so without a lock or an allocation: whether it has a descriptor that is not
/// one of `before` and leads to no file of /proc or /sys (into which other threads look in
/// passing), or a mapping of a memory file. Tells on stderr.
bool holds_more_than(const Descriptors& before) {
  std::array<char, 64> link{};
  std::array<char, 4096> text{};
  for (int fd = 0; fd < static_cast<int>(before.size()); ++fd) {
    if (before[static_cast<std::size_t>(fd)]) continue;
    (void)std::snprintf(link.data(), link.size(), "/proc/self/fd/%d", fd);
    const ssize_t size = ::readlink(link.data(), text.data(), text.size());
    if (size < 0) continue;
    const std::string_view target(text.data(), static_cast<std::size_t>(size));
    if (target.starts_with("/proc") || target.starts_with("/sys")) continue;
    text[static_cast<std::size_t>(size)] = '\n';
    (void)!::write(STDERR_FILENO, text.data(), static_cast<std::size_t>(size) + 1);
    return true;
  }
  const int maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  constexpr std::string_view kMemoryFile = "memfd:";
  std::size_t matched = 0;
  for (ssize_t got = 0; (got = ::read(maps, text.data(), text.size())) > 0;) {
    for (const char c : std::string_view(text.data(), static_cast<std::size_t>(got))) {
      matched = c == kMemoryFile[matched] ? matched + 1 : static_cast<std::size_t>(c == 'm');
      if (matched < kMemoryFile.size()) continue;
      (void)!::write(STDERR_FILENO, "the ring\n", 9);
      return true;
    }
  }
  ::close(maps);
  return false;
}

TEST(AsyncSave, ForkedChildrenHoldNothingOfItWhateverIsBeingOpened) {
  if (!test::kForksWhileOthersAllocate) GTEST_SKIP() << test::kNoForksWhileOthersAllocate;
  const test::TemporaryDirectory directory;
  const Descriptors before = open_descriptors();
  std::atomic<bool> stop{false};
  std::thread saver([&] {
    const auto storages = noise({300'000}, 20);
    for (const WriteMode mode : {WriteMode::automatic, WriteMode::buffered}) {
      // Fewer where a disk takes its time.
      const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      for (int i = 0; i < 200 && !stop && std::chrono::steady_clock::now() < enough; ++i) {
        CheckpointerConfig config = small_ring();
        config.writer_config.mode = mode;
        AsyncSave async(config, {});
        async.submit(job_for(directory / "async", storages)).written.get();
        SyncSave sync(config.writer_config, {}, {});
        (void)sync.run(job_for(directory / "sync", storages));
      }
    }
    stop = true;
  });
  int forks = 0;
  int failures = 0;
  for (; !stop && failures == 0; ++forks) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ::_exit(holds_more_than(before) ? 1 : 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) ++failures;
  }
  stop = true;
  saver.join();
  EXPECT_EQ(failures, 0);
  EXPECT_GT(forks, 100);
}

}  // namespace
}  // namespace ckptring::save
