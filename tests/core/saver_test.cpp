// Saves of states that no tensor library made.
#include "core/plain_state.h"
#include "support/error_of.h"
#include "support/launch_environment.h"
#include "support/temporary_directory.h"

#include <ckptring/archive.h>
#include <ckptring/saver.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace ckptring::test {
namespace {

using std::chrono::steady_clock;
using testing::HasSubstr;
using testing::StartsWith;

/// A directory that cannot be made, whoever asks for it.
const char* const kUnwritable = "/proc/ckptring-test/run";

class SaverTest : public testing::TestWithParam<bool> {
 protected:
  static bool is_async() { return GetParam(); }
  static std::unique_ptr<Saver> make(CheckpointerConfig chosen = config(), RankInfo rank = {}) {
    return is_async() ? Saver::asynchronous(chosen, rank) : Saver::synchronous(chosen, rank);
  }
  const TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Ways, SaverTest, testing::Bool(),
                         [](const auto& way) { return way.param ? "Async" : "Sync"; });

TEST_P(SaverTest, WritesWhatIsRecorded) {
  const PlainState state(300, 500);
  const auto saver = make(config(), {2, 4});
  const SaveHandle save = saver->save(directory_ / "run", state,
                                      {.step = 12, .metadata = {{"note", std::string("hi")}}});
  EXPECT_EQ(save.written.get().path, directory_ / "run/checkpoint_2.pt");
  EXPECT_EQ(saver->rank_info().global_rank, 2);
  const Archive archive = Archive::open(directory_ / "run", {2, 4});
  EXPECT_EQ(archive.info().step, 12);
  EXPECT_EQ(archive.info().world_size, 4);
  EXPECT_EQ(std::get<std::string>(archive.info().metadata.at("note")), "hi");
  std::vector<std::int32_t> read(state.matrix.size());
  archive.read(archive.get<ArchivedTensor>("model.weight"),
               std::as_writable_bytes(std::span(read)));
  EXPECT_EQ(read, state.matrix);
}

TEST(Saver, SyncAndAsyncWriteTheSameBytes) {
  const TemporaryDirectory directory;
  const PlainState state(300, 500);
  Saver::synchronous(config(), RankInfo{})->save(directory / "sync", state).written.get();
  Saver::asynchronous(config(), RankInfo{})->save(directory / "async", state).written.get();
  const std::string expected = bytes_of(directory / "sync/checkpoint_0.pt");
  EXPECT_GT(expected.size(), 600'000u);
  EXPECT_TRUE(bytes_of(directory / "async/checkpoint_0.pt") == expected);
}

TEST_P(SaverTest, WritesUnderTheNameThatWasAskedFor) {
  const auto saver = make();
  const SaveHandle one = saver->save(directory_ / "run", PlainState(1, 1), {.file_name = "a.bin"});
  EXPECT_EQ(one.written.get().path, directory_ / "run/a.bin");
  saver->save(directory_ / "run", PlainState(2, 1)).written.get();
  saver->save(directory_ / "run", PlainState(3, 1), {.file_name = "a.bin"}).written.get();
  EXPECT_EQ(Archive::open(directory_ / "run/a.bin").get<ArchivedTensor>("model.weight").sizes[0],
            3);
  EXPECT_EQ(Archive::open(directory_ / "run").get<ArchivedTensor>("model.weight").sizes[0], 2);
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "run")) {
    names.insert(entry.path().filename());
  }
  EXPECT_THAT(names, testing::ElementsAre("a.bin", "checkpoint_0.pt"));
  const Error error = error_of(
      [&] { (void)saver->save(directory_ / "run", PlainState(), {.file_name = "../a.bin"}); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
}

TEST_P(SaverTest, StoresTheIdOfTheAttempt) {
  const SaveId id{{7, 8, 9}};
  make(config(), {0, 2})->save(directory_ / "given", PlainState(), {.save_id = id}).written.get();
  EXPECT_EQ(Archive::open(directory_ / "given").info().save_id, id);
  make()->save(directory_ / "alone", PlainState()).written.get();
  EXPECT_EQ(Archive::open(directory_ / "alone").info().save_id, std::nullopt);
  const LaunchEnvironment launched{{"GROUP_WORLD_SIZE", "1"},
                                   {"TORCHELASTIC_RUN_ID", "blue"},
                                   {"TORCHELASTIC_RESTART_COUNT", "0"}};
  for (const int rank : {0, 1}) {
    make(config(), {rank, 2})->save(directory_ / "derived", PlainState()).written.get();
  }
  const auto derived = Archive::open(directory_ / "derived", {0, 2}).info().save_id;
  EXPECT_TRUE(derived);
  EXPECT_EQ(Archive::open(directory_ / "derived", {1, 2}).info().save_id, derived);
}

TEST_P(SaverTest, WhatRecordsIsNotCopied) {
  struct OnlyOne {
    OnlyOne() = default;
    OnlyOne(const OnlyOne&) = delete;
    OnlyOne& operator=(const OnlyOne&) = delete;
    void operator()(StateRecorder& recorder) const { state(recorder); }
    PlainState state;
  };
  const OnlyOne one;
  const auto saver = make();
  saver->prepare(one);
  saver->save(directory_ / "run", one).written.get();
}

TEST_P(SaverTest, WhatTheRecorderThrowsLeavesTheCallAndNothingIsBegun) {
  const auto saver = make();
  const Error error = error_of([&] {
    (void)saver->save(directory_ / "run", [](StateRecorder& state) {
      state.begin_dict();
      state.key("model");
      state.begin_list();
      state.refuse("it is a complex matter");
    });
  });
  EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
  EXPECT_EQ(error.what(),
            "save key model[0] to " + directory_ / "run" + ": it is a complex matter");
  EXPECT_THROW((void)saver->save(directory_ / "run",
                                 [](StateRecorder&) { throw std::runtime_error("of the caller"); }),
               std::runtime_error);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "run"));
  EXPECT_EQ(saver->save(directory_ / "run", PlainState()).previous_failure, nullptr);
}

TEST_P(SaverTest, AStateThatIsNotCompleteIsRefused) {
  const auto saver = make();
  const Error error = error_of([&] {
    (void)saver->save(directory_ / "run", [](StateRecorder& state) { state.begin_dict(); });
  });
  EXPECT_THAT(error.what(), HasSubstr("the state is not complete"));
  const Error keyless = error_of([&] {
    (void)saver->save(directory_ / "run", [](StateRecorder& state) {
      state.begin_dict();
      state.key("model");
      state.begin_dict();
      state.integer(1);
    });
  });
  EXPECT_EQ(keyless.code(), ErrorCode::invalid_argument);
  EXPECT_THAT(keyless.what(), HasSubstr("key model"));
  EXPECT_EQ(keyless.path(), directory_ / "run");
  saver->save(directory_ / "run", PlainState()).written.get();
}

TEST_P(SaverTest, PathsAndMetadataThatCannotBeAreRefusedByName) {
  const auto saver = make();
  const auto code = [&](const std::string& path, const Metadata& metadata) {
    return error_of([&] { (void)saver->save(path, PlainState(), {{}, metadata}); }).code();
  };
  EXPECT_EQ(code("", {}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(std::string("a\0b", 3), {}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(directory_ / "run", {{"\xff", true}}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(directory_ / "run", {{"a", std::string("\xff")}}), ErrorCode::invalid_argument);
}

TEST_P(SaverTest, WhatOwnsTheStateIsLetGoOnceItIsStaged) {
  const auto saver = make();
  auto owner = std::make_shared<PlainState>(300, 500);
  const std::weak_ptr<PlainState> watched = owner;
  const SaveHandle save = saver->save(directory_ / "run", [&](StateRecorder& state) {
    (*owner)(state);
    state.keep_alive(std::move(owner));
  });
  save.staged.get();
  EXPECT_TRUE(watched.expired());
  save.written.get();
  EXPECT_GT(bytes_of(directory_ / "run/checkpoint_0.pt").size(), 600'000u);
}

TEST_P(SaverTest, IsToldBeforeTheEndWhetherTheStateIsAsItWas) {
  const auto saver = make();
  const PlainState plain;
  std::atomic<int> asked = 0;
  const SaveHandle save = saver->save(directory_ / "run", [&](StateRecorder& state) {
    plain(state);
    state.check_unchanged(
        [&](const StateRecorder& recorded, int place, const std::vector<bool>& captured) {
          if (place != kHost) return;
          ++asked;
          EXPECT_EQ(captured.empty(), !is_async()) << "small ones are";
          throw Error(ErrorCode::changed_while_staging, "stage key " + recorded.path_of_storage(0),
                      "", "it moved");
        });
  });
  const Error error = error_of([&] { (void)save.written.get(); });
  EXPECT_EQ(error.code(), ErrorCode::changed_while_staging);
  EXPECT_THAT(error.what(), StartsWith("stage key model.weight"));
  EXPECT_EQ(asked, 1);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "run/checkpoint_0.pt"));
}

TEST(Saver, WhatIsVolatileMayChangeAsSoonAsSaveReturns) {
  const TemporaryDirectory directory;
  const auto saver = Saver::asynchronous(config(), RankInfo{});
  PlainState state(1000, 1000);  // far more than what is captured anyway
  const std::vector<std::int32_t> before = state.matrix;
  const SaveHandle save = saver->save(directory / "run", [&](StateRecorder& recorder) {
    state(recorder);
    recorder.declare_volatile(0);
  });
  std::ranges::fill(state.matrix, -1);
  EXPECT_EQ(save.written.get().captured_bytes, before.size() * sizeof(std::int32_t));
  const Archive archive = Archive::open(directory / "run");
  std::vector<std::int32_t> read(before.size());
  archive.read(archive.get<ArchivedTensor>("model.weight"),
               std::as_writable_bytes(std::span(read)));
  EXPECT_EQ(read, before);
}

TEST_P(SaverTest, AFailureThatNobodyFetchedIsHandedOverOnce) {
  const auto saver = make();
  saver->save(kUnwritable, PlainState()).written.wait();
  const SaveHandle next = saver->save(directory_ / "run", PlainState());
  EXPECT_NE(next.previous_failure, nullptr);
  next.written.get();
  EXPECT_EQ(saver->save(directory_ / "run", PlainState()).previous_failure, nullptr);
}

TEST_P(SaverTest, ThrowsThePreviousFailureWhereThatIsAskedFor) {
  CheckpointerConfig chosen = config();
  chosen.throw_previous_failure = true;
  const auto saver = make(chosen);
  saver->save(kUnwritable, PlainState()).written.wait();
  bool recorded = false;
  EXPECT_THROW((void)saver->save(directory_ / "run", [&](StateRecorder&) { recorded = true; }),
               Error);
  EXPECT_FALSE(recorded);
  saver->save(directory_ / "run", PlainState()).written.get();
}

TEST_P(SaverTest, TellsWhatWasNotWritten) {
  const auto saver = make();
  const auto deadline = steady_clock::now() + std::chrono::seconds(60);
  (void)saver->save(kUnwritable, PlainState()).written.error();
  saver->save(directory_ / "run", PlainState()).written.get();
  const auto unwritten = saver->wait_written(deadline);
  ASSERT_EQ(unwritten.size(), 1u);
  EXPECT_THAT(unwritten[0].path, StartsWith(kUnwritable));
  EXPECT_NE(unwritten[0].error, nullptr);
  EXPECT_TRUE(saver->wait_written(deadline).empty());
}

TEST_P(SaverTest, IsClosedForEverything) {
  const auto saver = make();
  saver->prepare(PlainState());
  saver->ready();
  saver->wait_prefaulted();
  EXPECT_EQ(saver->process_id() != 0, is_async());
  EXPECT_NO_THROW(saver->require_open("load"));
  saver->close();
  saver->close();
  EXPECT_EQ(saver->process_id(), 0);
  bool recorded = false;
  const auto record = [&](StateRecorder&) { recorded = true; };
  const std::vector<std::function<void()>> calls = {
      [&] { (void)saver->save(directory_ / "run", record); }, [&] { saver->require_open("load"); },
      [&] { (void)saver->wait_written(steady_clock::now()); }};
  for (std::size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(error_of(calls[i]).code(), ErrorCode::closed) << i;
  }
  EXPECT_FALSE(recorded);
}

TEST_P(SaverTest, RefusesEveryCallInAForkedChildAndLeavesTheParentAlone) {
  auto saver = make();
  saver->ready();
  const PlainState state(300, 500);
  const SaveHandle save = saver->save(directory_ / "before", state);
  const ::pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::alarm(60);  // instead of waiting for threads that are not here
    const auto refuses = [](const std::function<void()>& call) {
      return error_of(call).code() == ErrorCode::wrong_process;
    };
    const bool refused =
        refuses([&] { (void)saver->save("x", PlainState()); }) &&
        refuses([&] { (void)saver->prepare(PlainState()); }) && refuses([&] { saver->ready(); }) &&
        refuses([&] { saver->wait_prefaulted(); }) &&
        refuses([&] { (void)saver->wait_written(steady_clock::now()); }) &&
        refuses([&] { saver->close(); }) && refuses([&] { saver->require_open("load"); }) &&
        refuses([&] { (void)saver->process_id(); }) && refuses([&] { (void)save.written.get(); });
    saver.reset();
    std::_Exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  save.written.get();
  saver->save(directory_ / "after", PlainState()).written.get();
}

TEST_P(SaverTest, ManyThreadsMaySaveAtOnce) {
  CheckpointerConfig chosen = config();
  chosen.max_saves_in_flight = 3;
  const auto saver = make(chosen);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        const std::string name = "run_" + std::to_string(t) + "_" + std::to_string(i);
        saver->save(directory_ / name, PlainState(t + 1, i + 1)).written.get();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < 4; ++t) {
    for (int i = 0; i < 5; ++i) {
      const Archive archive =
          Archive::open(directory_ / ("run_" + std::to_string(t) + "_" + std::to_string(i)));
      const std::vector<std::int64_t> sizes{t + 1, i + 1};
      EXPECT_EQ(archive.get<ArchivedTensor>("model.weight").sizes, sizes);
    }
  }
}

TEST_P(SaverTest, WhatNoKeyIsToBlameForNamesThePath) {
  const auto saver = make();
  const Error error = error_of([&] {
    (void)saver->save(directory_ / "run", PlainState(),
                      {.metadata = {{"long", std::string(20 << 20, 'm')}}});
  });
  EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
  EXPECT_EQ(error.path(), directory_ / "run");
}

TEST_P(SaverTest, RanksCountAlikeThoughASaveOfOneIsRefused) {
  const LaunchEnvironment launched{{"GROUP_WORLD_SIZE", "1"},
                                   {"TORCHELASTIC_RUN_ID", "green"},
                                   {"TORCHELASTIC_RESTART_COUNT", "0"}};
  const PlainState plain;
  for (const int rank : {0, 1}) {
    const auto saver = make(config(), {rank, 2});
    const auto refuses = [&](StateRecorder& state) {
      if (rank == 1) throw std::runtime_error("of this rank");
      plain(state);
    };
    try {
      saver->save(directory_ / "run", refuses).written.wait();
    } catch (const std::runtime_error&) {
    }
    saver->save(directory_ / "run", PlainState()).written.get();
  }
  EXPECT_EQ(Archive::open(directory_ / "run", {0, 2}).info().save_id,
            Archive::open(directory_ / "run", {1, 2}).info().save_id);
}

TEST(Saver, ASaveThatIsRecordedWhileItIsClosedIsRefused) {
  const TemporaryDirectory directory;
  const auto saver = Saver::synchronous(config(), RankInfo{});
  const PlainState plain;
  EXPECT_EQ(error_of([&] {
              (void)saver->save(directory / "run", [&](StateRecorder& state) {
                plain(state);
                std::thread([&] { saver->close(); }).join();
              });
            }).code(),
            ErrorCode::closed);
  EXPECT_FALSE(std::filesystem::exists(directory / "run"));
}

/// Recordings use the memory of earlier ones.
TEST_P(SaverTest, StatesOfOtherSizesFollowEachOther) {
  const auto saver = make();
  for (const std::int64_t count : {1, 300, 2, 700, 0, 5}) {
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(count) + 1);
    std::iota(numbers.begin(), numbers.end(), count);
    saver
        ->save(directory_ / "run",
               [&](StateRecorder& state) {
                 state.begin_list();
                 state.expect(numbers.size());
                 for (const std::int64_t& number : numbers) {
                   const std::array<std::int64_t, 1> one{1};
                   state.tensor({.dtype = DType::int64,
                                 .storage = state.storage({.data = &number, .bytes = 8}),
                                 .sizes = one,
                                 .strides = one});
                 }
                 state.end_list();
               })
        .written.get();
    const Archive archive = Archive::open(directory_ / "run");
    ASSERT_EQ(archive.entries().size(), numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      std::int64_t read = -1;
      archive.read(std::get<ArchivedTensor>(archive.entries()[i].value),
                   std::as_writable_bytes(std::span(&read, 1)));
      EXPECT_EQ(read, numbers[i]);
    }
  }
}

}  // namespace
}  // namespace ckptring::test
