// What every sink promises, whichever way the bytes go.

#include "store/drive.h"
#include "store/on_disk.h"
#include "store/streaming_writer.h"

#include "support/write_modes.h"

#include <filesystem>

namespace ckptring::store::test {
namespace {

enum class Kind { direct_io_uring, direct_threads, buffered, stream };

std::string name_of(const ::testing::TestParamInfo<Kind>& info) {
  switch (info.param) {
    case Kind::direct_io_uring:
      return "direct_io_uring";
    case Kind::direct_threads:
      return "direct_threads";
    case Kind::buffered:
      return "buffered";
    case Kind::stream:
      return "stream";
  }
  return {};
}

/// Sees what is visible under the final name when it is called, and can throw.
class WatchingHook final : public WriterHook {
 public:
  void pre_commit(const CheckpointDescription& checkpoint) override {
    visible_before = exists(checkpoint.final_path);
    described = checkpoint;
    if (throw_before) throw std::runtime_error("not today");
  }
  void post_commit(const CheckpointDescription& checkpoint) override {
    visible_after = exists(checkpoint.final_path);
    if (throw_after) throw std::runtime_error("too late");
  }
  std::optional<bool> visible_before;
  std::optional<bool> visible_after;
  CheckpointDescription described{};
  bool throw_before = false;
  bool throw_after = false;
};

class EverySink : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (GetParam() == Kind::stream) return;
    const std::string refusal = ckptring::test::refusal_of(mode());
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
  static WriteMode mode() {
    return GetParam() == Kind::direct_io_uring  ? WriteMode::direct_io_uring
           : GetParam() == Kind::direct_threads ? WriteMode::direct_threads
                                                : WriteMode::buffered;
  }
  /// The directory is missing by two levels.
  std::string directory() const { return scratch_ / "run/step_1"; }
  std::string file() const { return directory() + "/checkpoint_0.pt"; }

  SaveTarget target(std::size_t bytes) {
    return make_target(system_files(), directory(), {0, 1}, bytes);
  }

  std::unique_ptr<SaveSink> sink(const SaveTarget& for_target, WriterHook* hook = nullptr) {
    if (GetParam() == Kind::stream) return make_stream_sink(writer_, for_target, hook);
    CheckpointWriterConfig config;
    config.mode = mode();
    config.queue_depth = 3;
    config.threads = 2;
    return make_file_sink(system_files(), config, for_target, hook);
  }

  void save(const std::vector<std::byte>& bytes, std::size_t block_bytes) {
    const SaveTarget where = target(bytes.size());
    save_all(*sink(where), bytes, block_bytes);
  }

  TemporaryDirectory scratch_;
  StreamingWriter writer_;
};

TEST_P(EverySink, WritesExactlyTheBytesItWasGiven) {
  for (const std::size_t block_bytes : {4096UL, 65536UL}) {
    for (const std::size_t size : {1UL, 511UL, 4095UL, 4096UL, 4097UL, 65535UL, 65536UL, 65537UL,
                                   200'000UL, 40 * 4096UL, 1'048'577UL}) {
      const std::vector<std::byte> bytes = random_bytes(size, static_cast<std::uint32_t>(size));
      save(bytes, block_bytes);
      ASSERT_EQ(contents(file()), bytes) << size << " bytes in blocks of " << block_bytes;
      ASSERT_EQ(tree(directory()), std::vector<std::string>{"checkpoint_0.pt"});
    }
  }
}

TEST_P(EverySink, ReplacesTheOldFileInOneStepAtItsCommit) {
  const std::vector<std::byte> old_bytes = random_bytes(300'000, 1);
  const std::vector<std::byte> new_bytes = random_bytes(100'001, 2);
  save(old_bytes, 65536);
  const SaveTarget where = target(new_bytes.size());
  const auto second = sink(where);
  ASSERT_TRUE(second->begin(Beginning::fresh));
  write_blocks(*second, new_bytes, 4096, 0, block_count(new_bytes.size(), 4096));
  EXPECT_EQ(contents(file()), old_bytes);
  second->commit(kIgnorePhases);
  EXPECT_EQ(contents(file()), new_bytes);
}

TEST_P(EverySink, ShowsNothingBeforeItRecordedThatItWillRename) {
  const std::vector<std::byte> bytes = random_bytes(10'000);
  const SaveTarget where = target(bytes.size());
  const auto one = sink(where);
  std::vector<CommitPhase> phases;
  save_all(*one, bytes, 4096, [&](CommitPhase phase, const std::string&) {
    phases.push_back(phase);
    EXPECT_FALSE(exists(file()));
  });
  EXPECT_EQ(phases, (std::vector{CommitPhase::syncing, CommitPhase::renaming}));
  EXPECT_TRUE(exists(file()));
}

TEST_P(EverySink, LeavesNothingWhenAborted) {
  const std::vector<std::byte> bytes = random_bytes(100'000);
  const SaveTarget where = target(bytes.size());
  for (std::size_t blocks = 0; blocks <= block_count(bytes.size(), 4096); blocks += 5) {
    const auto one = sink(where);
    ASSERT_TRUE(one->begin(Beginning::fresh));
    write_blocks(*one, bytes, 4096, 0, blocks);
    one->abort();
    EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{}) << blocks << " blocks written";
  }
}

TEST_P(EverySink, WaitsForItsWritesWhenAborted) {
  constexpr std::size_t kBlock = 4U << 20;
  const std::vector<std::byte> bytes = random_bytes(3 * kBlock);
  const SaveTarget where = target(bytes.size());
  const auto one = sink(where);
  ASSERT_TRUE(one->begin(Beginning::fresh));
  {
    AlignedBytes memory(bytes.size());
    std::memcpy(memory.data(), bytes.data(), bytes.size());
    for (std::size_t block = 0; block < 3 && one->room() > 0; ++block) {
      one->submit({block, block * kBlock, memory.data() + block * kBlock, kBlock, kBlock});
    }
    one->abort();
  }  // the memory is gone now
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{});
}

TEST_P(EverySink, KeepsTheOldFileAndForeignFilesWhenAborted) {
  const std::vector<std::byte> bytes = random_bytes(10'000);
  save(bytes, 4096);
  write_text(directory() + "/notes.txt", "mine");
  const SaveTarget where = target(20'000);
  const auto second = sink(where);
  ASSERT_TRUE(second->begin(Beginning::fresh));
  second->abort();
  EXPECT_EQ(contents(file()), bytes);
  EXPECT_EQ(tree(directory()), (std::vector<std::string>{"checkpoint_0.pt", "notes.txt"}));
}

TEST_P(EverySink, CallsTheHooksAroundTheMomentOfVisibility) {
  const std::vector<std::byte> bytes = random_bytes(10'000);
  const SaveTarget where = target(bytes.size());
  WatchingHook hook;
  const CommitTimes times = save_all(*sink(where, &hook), bytes, 4096);
  EXPECT_EQ(hook.visible_before, false);
  EXPECT_EQ(hook.visible_after, true);
  EXPECT_EQ(hook.described.directory, directory());
  EXPECT_EQ(hook.described.final_path, file());
  EXPECT_EQ(hook.described.total_bytes, bytes.size());
  EXPECT_TRUE(times.warnings.empty());
}

TEST_P(EverySink, FailsWithTheWordsOfAHookThatThrowsBefore) {
  const std::vector<std::byte> bytes = random_bytes(10'000);
  const SaveTarget where = target(bytes.size());
  WatchingHook hook;
  hook.throw_before = true;
  const auto one = sink(where, &hook);
  const Error error = error_of([&] { save_all(*one, bytes, 4096); });
  EXPECT_EQ(error.code(), ErrorCode::hook_failed);
  EXPECT_EQ(error.cause(), "not today");
  EXPECT_EQ(hook.visible_after, std::nullopt);
  one->abort();
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{});
}

TEST_P(EverySink, WarnsWithTheWordsOfAHookThatThrowsAfter) {
  const std::vector<std::byte> bytes = random_bytes(10'000);
  const SaveTarget where = target(bytes.size());
  WatchingHook hook;
  hook.throw_after = true;
  const CommitTimes times = save_all(*sink(where, &hook), bytes, 4096);
  ASSERT_EQ(times.warnings.size(), 1U);
  EXPECT_NE(times.warnings[0].find("too late"), std::string::npos) << times.warnings[0];
  EXPECT_EQ(contents(file()), bytes);
}

TEST_P(EverySink, RefusesToCommitAfterAFailure) {
  const std::vector<std::byte> bytes = random_bytes(10'000);
  const SaveTarget where = target(bytes.size());
  WatchingHook hook;
  hook.throw_before = true;
  const auto one = sink(where, &hook);
  (void)error_of([&] { save_all(*one, bytes, 4096); });
  hook.throw_before = false;
  EXPECT_EQ(error_of([&] { one->commit(kIgnorePhases); }).code(), ErrorCode::internal);
  EXPECT_EQ(one->room(), 0U);
  EXPECT_FALSE(exists(file()));
}

TEST_P(EverySink, RefusesToCommitBeforeTheLastByte) {
  const std::vector<std::byte> bytes = random_bytes(10'000);
  const SaveTarget where = target(bytes.size());
  const auto one = sink(where);
  ASSERT_TRUE(one->begin(Beginning::fresh));
  write_blocks(*one, bytes, 4096, 0, 2);
  EXPECT_THROW(one->commit(kIgnorePhases), Error);
  EXPECT_FALSE(exists(file()));
}

TEST_P(EverySink, ReportsAnAbortTwiceAsNothing) {
  const SaveTarget where = target(10'000);
  const auto one = sink(where);
  one->abort();
  const auto two = sink(where);
  ASSERT_TRUE(two->begin(Beginning::fresh));
  two->abort();
  two->abort();
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(Sinks, EverySink,
                         ::testing::Values(Kind::direct_io_uring, Kind::direct_threads,
                                           Kind::buffered, Kind::stream),
                         name_of);

// ── Only of streams ─────────────────────────────────────────────────────────────────────────────

TEST(StreamSink, CannotResume) {
  const TemporaryDirectory scratch;
  StreamingWriter writer;
  const SaveTarget target = make_target(system_files(), scratch.path(), {}, 100);
  for (const auto& [beginning, code] :
       {std::pair{Beginning::resuming, ErrorCode::process_failed},
        std::pair{Beginning::completing, ErrorCode::process_failed},
        std::pair{Beginning::renaming, ErrorCode::outcome_unknown}}) {
    const auto sink = make_stream_sink(writer, target, nullptr);
    EXPECT_EQ(error_of([&, beginning = beginning] { sink->begin(beginning); }).code(), code);
    sink->abort();
  }
  EXPECT_EQ(tree(scratch.path()), std::vector<std::string>{});
}

TEST(StreamSink, FailsWithTheWordsOfItsWriter) {
  class Failing final : public CheckpointWriter {
   public:
    explicit Failing(std::string where) : where_(std::move(where)) {}
    void begin(const CheckpointDescription&) override { at("begin"); }
    void write(std::uint64_t, std::span<const std::byte>) override { at("write"); }
    void commit() override { at("commit"); }
    void abort() noexcept override { ++aborts; }
    int aborts = 0;

   private:
    void at(const std::string& step) const {
      if (where_ == step) throw std::runtime_error("cannot " + step);
    }
    std::string where_;
  };
  const TemporaryDirectory scratch;
  const std::vector<std::byte> bytes = random_bytes(10'000);
  const SaveTarget target = make_target(system_files(), scratch.path(), {}, bytes.size());
  for (const char* step : {"begin", "write", "commit"}) {
    Failing writer(step);
    const auto sink = make_stream_sink(writer, target, nullptr);
    const Error error = error_of([&] { save_all(*sink, bytes, 4096); });
    EXPECT_EQ(error.code(), ErrorCode::hook_failed);
    EXPECT_EQ(error.cause(), std::string("cannot ") + step);
    sink->abort();
    sink->abort();
    EXPECT_EQ(writer.aborts, 1) << step;
  }
}

TEST(StreamSink, RefusesExtentsOutOfFileOrder) {
  const TemporaryDirectory scratch;
  StreamingWriter writer;
  const SaveTarget target = make_target(system_files(), scratch.path(), {}, 8192);
  const auto sink = make_stream_sink(writer, target, nullptr);
  ASSERT_TRUE(sink->begin(Beginning::fresh));
  AlignedBytes memory(4096);
  EXPECT_THROW(sink->submit({1, 4096, memory.data(), 4096, 4096}), Error);
  sink->abort();
}

}  // namespace
}  // namespace ckptring::store::test
