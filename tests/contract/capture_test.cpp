// What may change at once after an asynchronous `save`, what may not, and who notices.
#include <gmock/gmock.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contract/contract.h"
#include "contract/states.h"
#include "support/moved_state.h"

namespace ckptring::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::int64_t kLarge = 1 << 18;  ///< floats: 1 MiB, more than the ring holds

class Capture : public testing::Test {
 protected:
  /// A ring that nothing large fits into.
  static CheckpointerConfig config() {
    CheckpointerConfig config = small_ring();
    config.process_config.stopped_timeout_secs = 120;  // the tests stop the process themselves
    return config;
  }
  static std::unique_ptr<AsyncCheckpointer> make(const CheckpointerConfig& config) {
    auto checkpointer = make_async_checkpointer(config);
    checkpointer->ready();
    return checkpointer;
  }
  /// With storages of its own.
  static StateDict copy_of(const StateDict& state) { return moved_to(state, {c10::kCPU}); }
  StateDict load() { return CheckpointReader().read(directory_ / "it").state; }

  const TemporaryDirectory directory_;
};

TEST_F(Capture, SmallTensorsMayChangeAsSoonAsSaveHasReturned) {
  const auto checkpointer = make(config());
  const StateDict values = dict({{"large", noise({kLarge}, c10::kFloat)},
                                 {"small", noise({1000}, c10::kFloat, 2)},
                                 {"one", noise({}, c10::kLong, 3)},
                                 {"view", noise({10, 10}, c10::kShort, 4).slice(1, 2, 5)}});
  const StateDict state = placed(copy_of(values));
  SaveHandle save;
  {
    const Stopped nothing_drained(*checkpointer);
    save = checkpointer->save(directory_ / "it", state);
    for (const char* key : {"small", "one", "view"}) tensor_at(state, key).fill_(7);
    EXPECT_FALSE(save.staged.ready());
  }
  const SaveReport report = save.written.get();
  EXPECT_EQ(report.captured_storages, 3u);
  EXPECT_EQ(report.captured_bytes, 4000u + 8u + 200u);
  expect_equal(values, load(), "state");
}

TEST_F(Capture, WhatIsDeclaredVolatileMayChangeHoweverLargeItIs) {
  const auto checkpointer = make(config());
  const StateDict values = dict(
      {{"large", noise({kLarge}, c10::kFloat)}, {"volatile", noise({kLarge}, c10::kFloat, 2)}});
  const StateDict state = placed(copy_of(values));
  const at::Tensor changing = tensor_at(state, "volatile");
  state.insert_or_assign("volatile", declare_volatile(changing));
  EXPECT_TRUE(tensor_at(state, "volatile").is_alias_of(changing));
  for (int round = 0; round < 2; ++round) {
    changing.copy_(tensor_at(values, "volatile"));
    SaveHandle save;
    {
      const Stopped nothing_drained(*checkpointer);
      save = checkpointer->save(directory_ / "it", state);
      changing.zero_();
    }
    save.written.get();
    expect_equal(values, load(), "state");
  }
}

TEST_F(Capture, IsNeverOfAnEarlierSaveThoughSeveralAreInFlight) {
  CheckpointerConfig several = config();
  several.max_saves_in_flight = 3;
  const auto checkpointer = make(several);
  const StateDict values =
      dict({{"large", noise({kLarge}, c10::kFloat)}, {"small", at::ones({9})}});
  const StateDict state = placed(copy_of(values));
  std::vector<SaveHandle> saves;
  {
    const Stopped nothing_drained(*checkpointer);
    for (int i = 0; i < 3; ++i) {
      tensor_at(state, "small").fill_(i);
      saves.push_back(checkpointer->save(directory_ / std::to_string(i), state));
    }
  }
  for (int i = 0; i < 3; ++i) {
    saves[static_cast<std::size_t>(i)].written.get();
    const StateDict loaded = CheckpointReader().read(directory_ / std::to_string(i)).state;
    expect_equal(tensor_at(loaded, "small"), at::full({9}, static_cast<double>(i)), "small");
  }
}

TEST_F(Capture, IsToldByPrepare) {
  CheckpointerConfig little = config();
  little.staging_config.capture_small_bytes = 5000;
  const auto checkpointer = make(little);
  const at::Tensor shared = noise({2, 300}, c10::kFloat);
  const StateDict state = placed(dict(
      {{"a", at::ones({1000})},
       {"layer",
        dict({{"b", shared.select(0, 0)}, {"c", shared.select(0, 1)}, {"d", at::ones({1001})}})},
       {"list", list({at::zeros({10}), at::zeros({kLarge})})},
       {"empty", at::zeros({0})}}));
  state.insert_or_assign("list",
                         list({state.at("list").toListRef()[0],
                               declare_volatile(state.at("list").toListRef()[1].toTensor())}));
  const PrepareReport report = checkpointer->prepare(state);
  // Those in the limit of each place, the smallest first, and what is declared.
  const bool spread = tensor_at(state, "a").is_cuda();
  if (spread) {
    EXPECT_THAT(report.captured_keys,
                testing::IsSupersetOf({"a", "layer.b", "list[0]", "list[1]"}));
  } else {
    EXPECT_THAT(report.captured_keys, ElementsAre("layer.b", "list[0]", "list[1]"));
    EXPECT_EQ(report.captured_bytes, 2400u + 40u + 4u * kLarge);
  }
  const SaveReport saved = checkpointer->save(directory_ / "it", state).written.get();
  EXPECT_EQ(saved.captured_bytes, report.captured_bytes);
  EXPECT_EQ(saved.captured_storages, report.captured_keys.size());
}

TEST_F(Capture, PreparingWhatCannotBeStoredSaysThatAndNamesTheKey) {
  const auto checkpointer = make(config());
  const Error error = error_of([&] {
    (void)checkpointer->prepare(dict({{"n", at::ones({2}).to_sparse()}}));
  });
  EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
  EXPECT_THAT(error.what(), testing::StartsWith("prepare key n: "));
}

TEST_F(Capture, OfMoreThanIsAllowedIsRefusedWithTheKey) {
  CheckpointerConfig little = config();
  little.staging_config.capture_volatile_bytes = 5000;
  const auto checkpointer = make(little);
  const StateDict state = dict({{"layer", dict({{"a", declare_volatile(at::ones({1000}))},
                                                {"b", declare_volatile(at::ones({1000}))}})}});
  for (const Error& error : {error_of([&] { (void)checkpointer->prepare(state); }), error_of([&] {
                               (void)checkpointer->save(directory_ / "it", state);
                             })}) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
    EXPECT_THAT(error.what(), HasSubstr("key layer.b "));
    EXPECT_THAT(error.what(), HasSubstr("capture_volatile_bytes"));
  }
  checkpointer->save(directory_ / "it", dict({{"a", at::ones({3})}})).written.get();
}

TEST_F(Capture, IsLeftOutWhereSaveReturnsStaged) {
  CheckpointerConfig at_once = config();
  at_once.staging_config.use_async_staging = false;
  at_once.staging_config.capture_volatile_bytes = 0;
  const auto checkpointer = make(at_once);
  const StateDict state = placed(dict({{"a", at::ones({3})}}));
  state.insert_or_assign("a", declare_volatile(tensor_at(state, "a")));
  EXPECT_TRUE(checkpointer->prepare(state).captured_keys.empty());
  EXPECT_EQ(checkpointer->save(directory_ / "it", state).written.get().captured_storages, 0u);
}

/// Of what is not captured, changes are noticed.
class Changes : public Capture {
 protected:
  /// Saves while nothing can be staged, changes, and returns what the save says.
  Error save_and(const std::function<void(const at::Tensor& large)>& change,
                 const CheckpointerConfig& configuration = config()) {
    const auto checkpointer = make(configuration);
    const StateDict state = dict(
        {{"layer", dict({{"large", noise({kLarge}, c10::kFloat)}})}, {"small", at::ones({2})}});
    const at::Tensor large = state.at("layer").toGenericDict().at("large").toTensor();
    SaveHandle save;
    {
      const Stopped nothing_drained(*checkpointer);
      save = checkpointer->save(directory_ / "it", state);
      change(large);
    }
    Error error{ErrorCode::ok, "", "", ""};
    try {
      save.staged.get();
    } catch (const Error& failure) {
      error = failure;
    }
    const std::exception_ptr written = save.written.error();
    EXPECT_EQ(written != nullptr, error.code() != ErrorCode::ok);
    EXPECT_EQ(std::filesystem::exists(directory_ / "it"), written == nullptr);
    return error;
  }
  static void expect_named(const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::changed_while_staging) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("key layer.large "));
  }
};

TEST_F(Changes, ThatRaiseAVersionAreFound) {
  expect_named(save_and([](const at::Tensor& large) { large.select(0, kLarge - 1).zero_(); }));
}

TEST_F(Changes, ThatRaiseNoVersionAreFoundWhereTheyAreLarge) {
  const auto write_silently = [](const at::Tensor& large) {
    std::memset(large.mutable_data_ptr(), 0, large.nbytes());
  };
  expect_named(save_and(write_silently));
  CheckpointerConfig unsampled = config();
  unsampled.staging_config.sample_unchanged = false;
  EXPECT_EQ(save_and(write_silently, unsampled).code(), ErrorCode::ok);
}

TEST_F(Changes, OfTheMemoryOfAStorageAreFound) {
  at::DataPtr before;  // still read
  expect_named(save_and([&](const at::Tensor& large) {
    c10::StorageImpl* const storage = large.storage().unsafeGetStorageImpl();
    at::DataPtr other = storage->allocator()->allocate(storage->nbytes());
    before = storage->set_data_ptr(std::move(other));
  }));
}

TEST_F(Changes, OfWhatIsCapturedAreNone) {
  const Error error = save_and([](const at::Tensor&) {});
  EXPECT_EQ(error.code(), ErrorCode::ok) << error.what();
}

}  // namespace
}  // namespace ckptring::test
