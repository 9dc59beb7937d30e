// What only the asynchronous path promises: two futures, saves in flight, a process of its own.
#include <gmock/gmock.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "contract/contract.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

using testing::HasSubstr;

CheckpointerConfig with_ring(std::uint64_t blocks) {
  CheckpointerConfig config = small_ring();
  config.process_config.ring_bytes = blocks * config.process_config.block_bytes;
  config.process_config.stopped_timeout_secs = 120;  // the tests stop the process themselves
  return config;
}

class Async : public testing::Test {
 protected:
  std::unique_ptr<AsyncCheckpointer> make(const CheckpointerConfig& config) {
    auto checkpointer = make_async_checkpointer(config);
    checkpointer->ready();
    return checkpointer;
  }
  StateDict load(const std::string& name) {
    return CheckpointReader().read(directory / name).state;
  }
  TemporaryDirectory directory;
};

TEST_F(Async, OnceStagedTheStateMayChange) {
  const auto checkpointer = make(with_ring(64));
  const StateDict state = placed(sample_state());
  SaveHandle handle;
  {
    const Stopped nothing_drained(*checkpointer);
    handle = checkpointer->save(directory / "it", state);
    handle.staged.get();
    EXPECT_FALSE(handle.written.ready());
    for (const char* key : {"weight", "bias", "last"}) tensor_at(state, key).zero_();
  }
  handle.written.get();
  expect_equal(sample_state(), load("it"), "state");
}

TEST_F(Async, AChangeBeforeStagedFailsTheSaveAndNamesTheKey) {
  const auto checkpointer = make(with_ring(2));
  const at::Tensor large = noise({1 << 18}, c10::kFloat);
  const StateDict state = dict({{"a", dict({{"large", large}})}, {"b", at::ones({2})}});
  SaveHandle handle;
  {
    const Stopped nothing_drained(*checkpointer);  // so 1 MB cannot be staged through 128 KiB
    handle = checkpointer->save(directory / "it", state);
    EXPECT_FALSE(handle.staged.ready());
    large.zero_();  // which may be seen at once
  }
  const Error error = error_of([&] { handle.staged.get(); });
  EXPECT_EQ(error.code(), ErrorCode::changed_while_staging);
  EXPECT_THAT(error.what(), HasSubstr("key a.large "));
  EXPECT_EQ(error_of([&] { handle.written.get(); }).code(), ErrorCode::changed_while_staging);
  EXPECT_FALSE(std::filesystem::exists(directory / "it"));
  checkpointer->save(directory / "it", state).written.get();
  expect_equal(state, load("it"), "state");
}

TEST_F(Async, TensorsAreKeptAliveUntilStaged) {
  const auto checkpointer = make(with_ring(2));
  SaveHandle handle;
  {
    const Stopped nothing_drained(*checkpointer);
    handle =
        checkpointer->save(directory / "it", placed(dict({{"w", noise({1 << 18}, c10::kFloat)}})));
    const at::Tensor other = noise({1 << 18}, c10::kFloat, 99);  // where the memory might be reused
  }
  handle.written.get();
  expect_equal(dict({{"w", noise({1 << 18}, c10::kFloat)}}), load("it"), "state");
}

TEST_F(Async, WithoutBackgroundStagingSaveReturnsStaged) {
  CheckpointerConfig config = with_ring(2);
  config.staging_config.use_async_staging = false;
  const auto checkpointer = make(config);
  const StateDict state = placed(sample_state());
  const SaveHandle handle = checkpointer->save(directory / "it", state);
  EXPECT_TRUE(handle.staged.ready());
  tensor_at(state, "weight").zero_();
  handle.written.get();
  expect_equal(sample_state(), load("it"), "state");
}

TEST_F(Async, SeveralSavesMayBeInFlight) {
  CheckpointerConfig config = with_ring(128);
  config.max_saves_in_flight = 4;
  const auto checkpointer = make(config);
  std::vector<SaveHandle> handles;
  {
    const Stopped nothing_drained(*checkpointer);
    for (std::uint64_t i = 0; i < 4; ++i) {
      handles.push_back(checkpointer->save(directory / std::to_string(i), placed(sample_state(i))));
      handles.back().staged.get();
    }
    for (const SaveHandle& handle : handles) EXPECT_FALSE(handle.written.ready());
  }
  for (std::uint64_t i = 0; i < 4; ++i) {
    handles[i].written.get();
    expect_equal(sample_state(i), load(std::to_string(i)), "state");
  }
}

TEST_F(Async, ByDefaultASaveWaitsForTheOneBefore) {
  const auto checkpointer = make(with_ring(4));
  const SaveHandle first = checkpointer->save(directory / "a", placed(sample_state()));
  const SaveHandle second = checkpointer->save(directory / "b", placed(sample_state()));
  EXPECT_TRUE(first.written.ready());
  second.written.get();
}

TEST_F(Async, ManySavesOfManySizesGoThroughOneRing) {
  CheckpointerConfig config = with_ring(3);
  config.max_saves_in_flight = 3;
  const auto checkpointer = make(config);
  std::vector<SaveHandle> handles;
  handles.reserve(60);
  const auto state = [](int i) {
    return dict(
        {{"w", noise({1 + i * 7919 % 300'000}, c10::kByte, static_cast<std::uint64_t>(i))}});
  };
  for (int i = 0; i < 60; ++i) {
    handles.push_back(checkpointer->save(directory / std::to_string(i), placed(state(i))));
  }
  for (int i = 0; i < 60; ++i) {
    handles[static_cast<std::size_t>(i)].written.get();
    expect_equal(state(i), load(std::to_string(i)), "state " + std::to_string(i));
  }
}

TEST_F(Async, AnAutomaticRingGrowsWithTheState) {
  CheckpointerConfig config = small_ring();
  config.process_config.ring_bytes = 0;
  const auto checkpointer = make(config);
  checkpointer->prepare(placed(dict({{"w", noise({1000}, c10::kFloat)}})));
  for (const std::int64_t size : {1'000, 1'000'000, 10'000}) {
    const StateDict state = dict({{"w", noise({size}, c10::kFloat)}});
    checkpointer->save(directory / std::to_string(size), placed(state)).written.get();
    expect_equal(state, load(std::to_string(size)), "state");
  }
}

TEST_F(Async, AFailureIsCarriedByItsFutureOnly) {
  CheckpointerConfig config = with_ring(8);
  config.max_saves_in_flight = 3;
  const auto checkpointer = make(config);
  const std::string path = kUnwritable;
  const SaveHandle before = checkpointer->save(directory / "before", placed(sample_state(1)));
  const SaveHandle failed = checkpointer->save(path, placed(sample_state(2)));
  const SaveHandle after = checkpointer->save(directory / "after", placed(sample_state(3)));
  before.written.get();
  EXPECT_NE(failed.written.error(), nullptr);
  after.written.get();
  expect_equal(sample_state(1), load("before"), "state");
  expect_equal(sample_state(3), load("after"), "state");
}

TEST_F(Async, WaitWrittenTellsWhatIsNotDurable) {
  const auto checkpointer = make(with_ring(64));
  const auto soon = [] { return std::chrono::steady_clock::now() + std::chrono::milliseconds(50); };
  EXPECT_TRUE(checkpointer->wait_written(soon()).empty());
  SaveHandle handle;
  {
    const Stopped nothing_drained(*checkpointer);
    handle = checkpointer->save(directory / "it", placed(sample_state()));
    const auto unwritten = checkpointer->wait_written(soon());
    ASSERT_EQ(unwritten.size(), 1u);
    EXPECT_THAT(unwritten[0].path, HasSubstr(directory / "it"));
    EXPECT_EQ(unwritten[0].error, nullptr);
  }
  EXPECT_TRUE(checkpointer->wait_written(std::chrono::steady_clock::now() + std::chrono::minutes(1))
                  .empty());
  EXPECT_TRUE(handle.written.ready());
  const SaveHandle failed = checkpointer->save(kUnwritable, placed(sample_state()));
  const auto unwritten =
      checkpointer->wait_written(std::chrono::steady_clock::now() + std::chrono::minutes(1));
  ASSERT_EQ(unwritten.size(), 1u);
  EXPECT_NE(unwritten[0].error, nullptr);
}

TEST_F(Async, CloseFinishesWhatWasBegun) {
  const auto checkpointer = make(with_ring(2));
  const SaveHandle handle = checkpointer->save(directory / "it", placed(sample_state()));
  checkpointer->close();
  EXPECT_TRUE(handle.written.ready());
  handle.written.get();
  expect_equal(sample_state(), load("it"), "state");
}

TEST_F(Async, ARingThatDoesNotFitIsRefusedAtOnce) {
  CheckpointerConfig config = small_ring();
  config.process_config.ring_bytes = 1ull << 45;  // more than any machine has
  const Error error = error_of([&] { (void)make_async_checkpointer(config); });
  EXPECT_EQ(error.code(), ErrorCode::out_of_memory) << error.what();
  EXPECT_THAT(error.what(), HasSubstr("ring_bytes asks for 33554432.0 MiB"));
}

TEST_F(Async, AMissingHelperIsReportedWithItsPath) {
  CheckpointerConfig config = with_ring(2);
  config.process_config.executable = directory / "no-such-helper";
  const auto checkpointer = make_async_checkpointer(config);
  const Error error = error_of([&] { checkpointer->ready(); });
  EXPECT_EQ(error.code(), ErrorCode::process_failed);
  EXPECT_THAT(error.what(), HasSubstr("no-such-helper"));
  EXPECT_NE(checkpointer->save(directory / "it", placed(sample_state())).written.error(), nullptr);
}

TEST_F(Async, TheHelperThatTheLibraryFindsItselfGetsNoCredentials) {
  ASSERT_EQ(::setenv("CKPTRING_TEST_SECRET", "token", 1), 0);
  CheckpointerConfig config = with_ring(2);
  config.process_config.executable.clear();
  const auto checkpointer = make(config);
  std::ifstream in("/proc/" + std::to_string(checkpointer->process_id()) + "/environ");
  const std::string environment{std::istreambuf_iterator<char>(in), {}};
  ASSERT_TRUE(in);
  EXPECT_THAT(environment, testing::Not(HasSubstr("SECRET")));
}

TEST_F(Async, AKilledHelperIsReplacedAndTheFileIsWhole) {
  const auto checkpointer = make(with_ring(64));
  SaveHandle handle;
  {
    const Stopped nothing_drained(*checkpointer);
    handle = checkpointer->save(directory / "it", placed(sample_state()));
    handle.staged.wait();  // it is announced, and all of it is in the ring
    ASSERT_EQ(::kill(checkpointer->process_id(), SIGKILL), 0);
  }
  EXPECT_GE(handle.written.get().restarts, 1u);
  expect_equal(sample_state(), load("it"), "state");
}

}  // namespace
}  // namespace ckptring::test
