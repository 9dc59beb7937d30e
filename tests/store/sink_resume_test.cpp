// What a process promises that goes on with the save of a dead one.

#include "store/drive.h"
#include "store/file_lock.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"

#include "support/write_modes.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>

namespace ckptring::store::test {
namespace {

constexpr std::size_t kBlock = 16384;

class CountingHook final : public WriterHook {
 public:
  void pre_commit(const CheckpointDescription&) override { ++before; }
  void post_commit(const CheckpointDescription&) override { ++after; }
  int before = 0;
  int after = 0;
};

class FileSinks : public ckptring::test::OfWriteModes<::testing::Test> {
 protected:
  FileSinks() {
    target_ = make_target(system_files(), scratch_ / "run/step_1", {0, 1}, bytes_.size());
  }
  std::unique_ptr<SaveSink> sink(WriterHook* hook = nullptr) {
    CheckpointWriterConfig config;
    config.mode = GetParam();
    return make_file_sink(system_files(), config, target_, hook);
  }
  /// A process that died after `blocks` blocks were on disk.
  void die_after(std::size_t blocks) {
    const auto dead = sink();
    ASSERT_TRUE(dead->begin(Beginning::fresh));
    write_blocks(*dead, bytes_, kBlock, 0, blocks);
  }
  std::string file() const { return target_.directory + "/" + target_.final_name; }
  std::string temporary() const { return target_.directory + "/" + target_.temporary_name; }

  TemporaryDirectory scratch_;
  std::vector<std::byte> bytes_ = random_bytes(10 * kBlock + 777);
  std::size_t blocks_ = block_count(bytes_.size(), kBlock);
  SaveTarget target_;
};

TEST_P(FileSinks, ResumeAtEveryBlockWithIdenticalBytes) {
  for (std::size_t released = 0; released <= blocks_; ++released) {
    die_after(released);
    const auto next = sink();
    ASSERT_TRUE(next->begin(Beginning::resuming));
    write_blocks(*next, bytes_, kBlock, released, blocks_);
    next->commit(kIgnorePhases);
    ASSERT_EQ(contents(file()), bytes_) << "resumed at block " << released;
    ASSERT_EQ(tree(target_.directory), std::vector<std::string>{"checkpoint_0.pt"});
    std::filesystem::remove_all(scratch_ / "run");
  }
}

TEST_P(FileSinks, ResumeAfterDeathsInTheCommit) {
  for (const CommitPhase last : {CommitPhase::syncing, CommitPhase::renaming}) {
    struct Death {};
    {
      const auto dead = sink();
      ASSERT_TRUE(dead->begin(Beginning::fresh));
      write_blocks(*dead, bytes_, kBlock, 0, blocks_);
      EXPECT_THROW(dead->commit([&](CommitPhase phase, const std::string&) {
        if (phase == last) throw Death{};
      }),
                   Death);
    }
    const auto next = sink();
    ASSERT_TRUE(
        next->begin(last == CommitPhase::renaming ? Beginning::renaming : Beginning::resuming));
    next->commit(kIgnorePhases);
    EXPECT_EQ(contents(file()), bytes_);
    std::filesystem::remove_all(scratch_ / "run");
  }
}

TEST_P(FileSinks, ResumeAPredecessorThatNeverCreatedAnything) {
  const auto next = sink();
  ASSERT_TRUE(next->begin(Beginning::resuming));
  write_blocks(*next, bytes_, kBlock, 0, blocks_);
  next->commit(kIgnorePhases);
  EXPECT_EQ(contents(file()), bytes_);
}

TEST_P(FileSinks, NeverCommitAHoleWhereTheTemporaryWasRemoved) {
  for (const std::size_t released : {std::size_t{1}, blocks_ - 1, blocks_}) {
    die_after(released);
    ASSERT_EQ(::unlink(temporary().c_str()), 0);
    // The one after it must not find a file either: an empty one would pass for the lost one.
    for (int successor = 1; successor <= 2; ++successor) {
      const auto next = sink();
      const Error error = error_of([&] { (void)next->begin(Beginning::completing); });
      EXPECT_EQ(error.code(), ErrorCode::io);
      EXPECT_NE(error.cause().find("removed"), std::string::npos) << error.what();
      EXPECT_FALSE(exists(temporary()));
      if (successor == 2) next->abort();  // the first one was killed
    }
    EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{});
  }
}

TEST_P(FileSinks, FinishARecordedRenameThatDidNotHappen) {
  die_after(blocks_);
  ASSERT_EQ(::truncate(temporary().c_str(), static_cast<off_t>(bytes_.size())), 0);
  CountingHook hook;
  const auto next = sink(&hook);
  ASSERT_TRUE(next->begin(Beginning::renaming));
  next->commit(kIgnorePhases);
  EXPECT_EQ(contents(file()), bytes_);
  EXPECT_FALSE(exists(temporary()));
  EXPECT_EQ(hook.before, 0);
  EXPECT_EQ(hook.after, 1);
}

TEST_P(FileSinks, FinishARecordedRenameThatDidHappen) {
  save_all(*sink(), bytes_, kBlock);
  CountingHook hook;
  const auto next = sink(&hook);
  ASSERT_TRUE(next->begin(Beginning::renaming));
  next->commit(kIgnorePhases);
  EXPECT_EQ(contents(file()), bytes_);
  EXPECT_EQ(hook.after, 1) << "hooks are called at least once";
}

TEST_P(FileSinks, FailARecordedRenameOfWhichNothingIsLeft) {
  std::filesystem::create_directories(target_.directory);
  const auto next = sink();
  ASSERT_TRUE(next->begin(Beginning::renaming));
  EXPECT_EQ(error_of([&] { next->commit(kIgnorePhases); }).code(), ErrorCode::not_found);
}

TEST_P(FileSinks, WaitForTheLockThatAPredecessorsWritesStillHold) {
  die_after(3);
  for (const Beginning beginning : {Beginning::resuming, Beginning::renaming}) {
    const auto next = sink();
    os::UniqueFd predecessor(::open(temporary().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(::flock(predecessor.get(), LOCK_EX | LOCK_NB), 0);
    EXPECT_FALSE(next->begin(beginning));
    EXPECT_FALSE(next->begin(beginning));
    EXPECT_EQ(next->room(), 0U);
    predecessor.reset();
    EXPECT_TRUE(next->begin(beginning));
  }
}

TEST_P(FileSinks, RemoveWhatAPredecessorMadeWhenTheSaveIsUndone) {
  die_after(3);
  const auto next = sink();
  ASSERT_TRUE(next->begin(Beginning::resuming));
  next->abort();
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{});
}

TEST_P(FileSinks, CanBeUndoneWhileThePredecessorStillHoldsTheLock) {
  die_after(3);
  os::UniqueFd predecessor(::open(temporary().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(predecessor.get(), LOCK_EX | LOCK_NB), 0);
  const auto next = sink();
  EXPECT_FALSE(next->begin(Beginning::resuming));
  next->abort();
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{});
}

TEST_P(FileSinks, NeverFollowALinkInPlaceOfTheTemporary) {
  std::filesystem::create_directories(target_.directory);
  write_text(scratch_ / "victim", "precious");
  ASSERT_EQ(::symlink((scratch_ / "victim").c_str(), temporary().c_str()), 0);
  for (const Beginning beginning : {Beginning::fresh, Beginning::resuming, Beginning::renaming}) {
    const auto one = sink();
    const Error error = error_of([&] { one->begin(beginning); });
    EXPECT_EQ(error.errno_value(), beginning == Beginning::fresh ? EEXIST : ELOOP);
  }
  EXPECT_EQ(std::filesystem::file_size(scratch_ / "victim"), 8U);
}

TEST_P(FileSinks, NeverTakeAFreshTemporaryThatIsAlreadyThere) {
  std::filesystem::create_directories(target_.directory);
  write_text(temporary(), "whose?");
  const auto one = sink();
  EXPECT_EQ(error_of([&] { one->begin(Beginning::fresh); }).errno_value(), EEXIST);
  one->abort();
  EXPECT_TRUE(exists(temporary())) << "it was not this save's to remove";
}

TEST_P(FileSinks, RefuseAFifoInPlaceOfTheTemporary) {
  std::filesystem::create_directories(target_.directory);
  ASSERT_EQ(::mkfifo(temporary().c_str(), 0600), 0);
  const auto one = sink();
  EXPECT_EQ(error_of([&] { one->begin(Beginning::resuming); }).code(), ErrorCode::io);
}

// The real thing: a process is killed with its writes in flight.
TEST_P(FileSinks, GoOnAfterAKillWithWritesInFlight) {
  constexpr std::size_t kLargeBlock = 4U << 20;
  constexpr std::size_t kBlocks = 12;
  bytes_ = random_bytes(kBlocks * kLargeBlock - 1234);
  target_ = make_target(system_files(), scratch_ / "run/step_1", {0, 1}, bytes_.size());

  const std::size_t shared_bytes = kBlocks * kLargeBlock;
  void* const memory = ::mmap(nullptr, shared_bytes + 4096, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const blocks = static_cast<std::byte*>(memory);
  auto* const on_disk = new (blocks + shared_bytes) std::atomic<std::size_t>(0);
  std::memcpy(blocks, bytes_.data(), bytes_.size());
  const auto extent = [&](std::size_t block) {
    const std::size_t offset = block * kLargeBlock;
    const std::size_t size = std::min(kLargeBlock, bytes_.size() - offset);
    return Extent{block, offset, blocks + offset, size, base::align_up(size, 4096)};
  };

  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto dead = sink();
    if (!dead->begin(Beginning::fresh)) ::_exit(1);
    std::vector<bool> finished(kBlocks, false);
    std::vector<std::uint64_t> done;
    std::size_t next = 0;
    for (;;) {
      while (next < kBlocks && dead->room() > 0) dead->submit(extent(next++));
      ::pollfd entry{dead->completion_fd(), POLLIN, 0};
      if (::poll(&entry, 1, 10'000) != 1) ::_exit(2);
      done.clear();
      dead->reap(done);
      for (const std::uint64_t block : done) finished[block] = true;
      std::size_t tail = on_disk->load();
      while (tail < kBlocks && finished[tail]) ++tail;
      on_disk->store(tail);
    }
  }
  while (on_disk->load() < 2) ASSERT_EQ(::waitpid(child, nullptr, WNOHANG), 0);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);

  const auto next = sink();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!next->begin(Beginning::resuming)) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  }
  // From now on nobody reads the blocks that are on disk: as if they were filled again.
  const std::size_t tail = on_disk->load();
  std::memset(blocks, 0xDD, std::min(tail * kLargeBlock, bytes_.size()));
  std::vector<std::uint64_t> done;
  for (std::size_t block = tail; block < kBlocks;) {
    while (block < kBlocks && next->room() > 0) next->submit(extent(block++));
    wait_for_completion(*next);
    next->reap(done);
  }
  while (done.size() < kBlocks - tail) {
    wait_for_completion(*next);
    next->reap(done);
  }
  next->commit(kIgnorePhases);
  EXPECT_TRUE(contents(file()) == bytes_) << "killed after " << tail << " blocks";
  ::munmap(memory, shared_bytes + 4096);
}

INSTANTIATE_TEST_SUITE_P(Modes, FileSinks, ckptring::test::write_modes(),
                         ckptring::test::mode_of_test);

}  // namespace
}  // namespace ckptring::store::test
