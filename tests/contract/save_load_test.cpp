// What goes in comes out: values, structure, sharing.
#include <ckptring/checkpoints.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "contract/contract.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

class SaveLoad : public Contract {
 protected:
  StateDict round_trip(const StateDict& state) {
    save("it", state);
    return checkpointer->load(directory / "it").state;
  }
};
CKPTRING_ALL_PATHS(SaveLoad);

TEST_P(SaveLoad, ANestedStateComesBackInOrder) {
  const StateDict state = sample_state();
  expect_equal(state, round_trip(state), "state");
}

TEST_P(SaveLoad, AnEmptyStateIsACheckpoint) { EXPECT_TRUE(round_trip(make_state_dict()).empty()); }

TEST_P(SaveLoad, EveryDtypeComesBackBitForBit) {
  StateDict state = make_state_dict();
  // All that this libtorch has, but for the quantized ones.
  for (int i = 0; i < static_cast<int>(c10::ScalarType::Undefined); ++i) {
    const auto type = static_cast<c10::ScalarType>(i);
    if (c10::isQIntType(type)) continue;
    state.insert_or_assign(c10::toString(type), noise({3, 5}, type));
  }
  expect_equal(state, round_trip(state), "state");
}

TEST_P(SaveLoad, ScalarsComeBackExactly) {
  const double infinity = std::numeric_limits<double>::infinity();
  const StateDict state = dict({{"smallest", std::numeric_limits<std::int64_t>::min()},
                                {"largest", std::numeric_limits<std::int64_t>::max()},
                                {"beyond32", std::int64_t{1} << 31},
                                {"minus", -1},
                                {"byte", 255},
                                {"negative zero", -0.0},
                                {"infinite", -infinity},
                                {"nan", std::nan("")},
                                {"denormal", 5e-324},
                                {"empty", ""},
                                {"zero byte", std::string("a\0b", 3)},
                                {"long", std::string(100'000, 'x')},
                                {"no", false}});
  expect_equal(state, round_trip(state), "state");
}

TEST_P(SaveLoad, KeysMayBeStringsAndInts) {
  const StateDict state = dict({{"1", 1}, {1, 2}, {-5, 3}, {"", 4}, {"a.b", 5}});
  expect_equal(state, round_trip(state), "state");
}

TEST_P(SaveLoad, ViewsKeepShapeStridesAndOffset) {
  const at::Tensor base = noise({6, 8}, c10::kFloat);
  const StateDict state = dict({{"transposed", base.t()},
                                {"sliced", base.slice(1, 1, 8, 3)},
                                {"expanded", noise({1, 4}, c10::kFloat).expand({3, 4})},
                                {"scalar", noise({}, c10::kDouble)},
                                {"empty", at::empty({0, 3})},
                                {"end", base.slice(0, 6, 6)}});
  const StateDict loaded = round_trip(state);
  expect_equal(state, loaded, "state");
  for (const auto& entry : state) {
    EXPECT_EQ(loaded.at(entry.key()).toTensor().strides(), entry.value().toTensor().strides());
    EXPECT_EQ(loaded.at(entry.key()).toTensor().storage_offset(),
              entry.value().toTensor().storage_offset());
  }
}

TEST_P(SaveLoad, LazyConjugationAndNegationComeBack) {
  const at::Tensor values = noise({4, 2}, c10::kInt).to(c10::kComplexFloat);
  const StateDict state = dict({{"conj", at::_conj(values)},
                                {"neg", at::_neg_view(at::ones({3}))},
                                {"imaginary", at::imag(at::_conj(values))}});
  ASSERT_TRUE(tensor_at(state, "imaginary").is_neg());
  expect_equal(state, round_trip(state), "state");
}

TEST_P(SaveLoad, AnUndefinedTensorIsNone) {
  EXPECT_TRUE(round_trip(dict({{"bias", at::Tensor()}})).at("bias").isNone());
}

TEST_P(SaveLoad, SharedStoragesAreWrittenOnceAndStayShared) {
  const at::Tensor embedding = noise({1000, 100}, c10::kFloat);
  const StateDict state = dict({{"in", embedding}, {"out", embedding}, {"row", embedding[5]}});
  const SaveReport report = save("it", state);
  EXPECT_LT(report.bytes, embedding.nbytes() * 3 / 2);
  const StateDict loaded = checkpointer->load(directory / "it").state;
  expect_equal(state, loaded, "state");
  EXPECT_TRUE(tensor_at(loaded, "in").is_alias_of(tensor_at(loaded, "out")));
  tensor_at(loaded, "out")[5].zero_();
  EXPECT_EQ(tensor_at(loaded, "row").abs().sum().item().toDouble(), 0);
}

TEST_P(SaveLoad, OneStorageMayBeSeenAsTwoDtypes) {
  const at::Tensor floats = noise({16}, c10::kFloat);
  const StateDict state = dict({{"floats", floats}, {"ints", floats.view(c10::kInt)}});
  const StateDict loaded = round_trip(state);
  expect_equal(state, loaded, "state");
  EXPECT_TRUE(tensor_at(loaded, "floats").is_alias_of(tensor_at(loaded, "ints")));
}

TEST_P(SaveLoad, TypedContainersAreStoredAsPlainOnes) {
  c10::Dict<std::string, std::int64_t> numbers;
  numbers.insert("a", 1);
  c10::Dict<std::int64_t, at::Tensor> tensors;
  tensors.insert(3, noise({2}, c10::kFloat));
  c10::List<std::optional<at::Tensor>> maybe;
  maybe.push_back(std::nullopt);
  maybe.push_back(noise({2}, c10::kFloat));
  const StateDict state =
      dict({{"ints", c10::List<std::int64_t>({1, 2, 3})},
            {"doubles", c10::List<double>({0.5})},
            {"bools", c10::List<bool>({true, false})},
            {"strings", c10::List<std::string>({"a", "b"})},
            {"tensors", c10::List<at::Tensor>({noise({3}, c10::kHalf), noise({2}, c10::kInt)})},
            {"maybe", maybe},
            {"numbers", numbers},
            {"by number", tensors}});
  expect_equal(state, round_trip(state), "state");
}

TEST_P(SaveLoad, RequiresGradComesBack) {
  const StateDict state =
      dict({{"leaf", at::ones({2}).set_requires_grad(true)}, {"constant", at::ones({2})}});
  const StateDict loaded = round_trip(state);
  EXPECT_TRUE(tensor_at(loaded, "leaf").requires_grad());
  EXPECT_TRUE(tensor_at(loaded, "leaf").is_leaf());
  EXPECT_FALSE(tensor_at(loaded, "constant").requires_grad());
}

TEST_P(SaveLoad, SavingToTheSamePathReplacesWhatWasThere) {
  save("it", sample_state(1));
  const StateDict second = dict({{"only", noise({10}, c10::kFloat)}});
  save("it", second);
  expect_equal(second, checkpointer->load(directory / "it").state, "state");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory / "it"), {}), 1);
}

TEST_P(SaveLoad, ManySavesInARowAllComeBack) {
  for (int i = 0; i < 20; ++i) {
    save("step_" + std::to_string(i), sample_state(static_cast<std::uint64_t>(i)));
  }
  for (int i = 0; i < 20; ++i) {
    expect_equal(sample_state(static_cast<std::uint64_t>(i)),
                 checkpointer->load(directory / ("step_" + std::to_string(i))).state, "state");
  }
}

TEST_P(SaveLoad, SavesFromTwoThreadsAreMadeOneAfterTheOther) {
  const auto name_of = [](std::uint64_t thread, std::uint64_t i) {
    return std::to_string(thread) + "_" + std::to_string(i);
  };
  std::vector<std::jthread> threads;
  for (std::uint64_t thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t i = 0; i < 10; ++i)
        save(name_of(thread, i), sample_state(10 * thread + i));
    });
  }
  threads.clear();
  for (std::uint64_t thread = 0; thread < 2; ++thread) {
    for (std::uint64_t i = 0; i < 10; ++i) {
      expect_equal(sample_state(10 * thread + i),
                   checkpointer->load(directory / name_of(thread, i)).state, "state");
    }
  }
}

TEST_P(SaveLoad, TheFileItselfCanBeNamed) {
  const StateDict state = sample_state();
  const SaveReport report = save("it", state);
  EXPECT_EQ(report.path, directory / "it/checkpoint_0.pt");
  EXPECT_EQ(report.bytes, std::filesystem::file_size(report.path));
  expect_equal(state, checkpointer->load(report.path).state, "state");
}

TEST_P(SaveLoad, MetadataAndStepAreFoundAgain) {
  const Metadata metadata{{"epoch", std::int64_t{3}}, {"best", true}, {"loss", 0.25}, {"run", "a"}};
  save("late", sample_state(), {.step = 20, .metadata = metadata});
  save("early", sample_state(), {.step = 3, .metadata = {}});
  const CheckpointInfo info = checkpointer->load(directory / "late").info;
  EXPECT_EQ(info.path, directory / "late");
  EXPECT_EQ(info.step, 20);
  EXPECT_EQ(info.metadata, metadata);
  EXPECT_EQ(info.rank, 0);
  EXPECT_EQ(info.world_size, 1);
  EXPECT_GE(info.format_version, 1);
  const auto newest = latest(directory.path());
  ASSERT_TRUE(newest.has_value());
  EXPECT_EQ(newest->path, directory / "late");
  EXPECT_EQ(newest->metadata, metadata);
}

TEST_P(SaveLoad, ALossThatIsNoNumberCostsNobodyACheckpoint) {
  const double infinity = std::numeric_limits<double>::infinity();
  const Metadata metadata{{"best", -infinity}, {"loss", std::nan("")}, {"worst", infinity}};
  save("it", sample_state(), {.step = 1, .metadata = metadata});
  const auto newest = latest(directory.path());
  ASSERT_TRUE(newest.has_value());
  for (const CheckpointInfo& info : {checkpointer->load(directory / "it").info, *newest}) {
    EXPECT_EQ(std::get<double>(info.metadata.at("best")), -infinity);
    EXPECT_TRUE(std::isnan(std::get<double>(info.metadata.at("loss"))));
    EXPECT_EQ(std::get<double>(info.metadata.at("worst")), infinity);
  }
}

TEST_P(SaveLoad, EachRankWritesAFileOfItsOwn) {
  const auto other = make_checkpointer(GetParam(), small_ring(), {1, 2});
  const auto first = make_checkpointer(GetParam(), small_ring(), {0, 2});
  first->save(directory / "it", dict({{"rank", 0}})).written.get();
  other->save(directory / "it", dict({{"rank", 1}})).written.get();
  EXPECT_EQ(first->load(directory / "it").state.at("rank").toInt(), 0);
  const LoadResult loaded = other->load(directory / "it");
  EXPECT_EQ(loaded.state.at("rank").toInt(), 1);
  EXPECT_EQ(loaded.info.rank, 1);
  EXPECT_EQ(loaded.info.world_size, 2);
}

TEST_P(SaveLoad, APathWithManyMissingFoldersIsMade) {
  save("a/b/c/d", dict({{"x", 1}}));
  EXPECT_TRUE(std::filesystem::exists(directory / "a/b/c/d/checkpoint_0.pt"));
}

TEST_P(SaveLoad, TheReportTellsWhatItCost) {
  const SaveHandle handle = checkpointer->save(directory / "it", placed(sample_state()));
  handle.staged.get();
  const SaveReport report = handle.written.get();
  EXPECT_GT(report.planned_seconds, 0);
  EXPECT_GE(report.staged_seconds, 0);
  EXPECT_EQ(report.restarts, 0u);
  EXPECT_TRUE(report.warnings.empty());
}

}  // namespace
}  // namespace ckptring::test
