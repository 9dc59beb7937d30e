// Loading into a state that is already there.
#include <c10/core/InferenceMode.h>
#include <ckptring/reader.h>
#include <gmock/gmock.h>

#include <fstream>
#include <functional>

#include "contract/contract.h"
#include "contract/odd_tensors.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class InPlace : public Contract {
 protected:
  LoadResult load(const StateDict& state, const LoadOptions& options = {}) {
    return checkpointer->load(directory / "it", state, options);
  }
};
CKPTRING_ALL_PATHS(InPlace);

TEST_P(InPlace, TensorsAreFilledWhereTheyAre) {
  const at::Tensor saved = noise({30, 20}, c10::kFloat);
  save("it", dict({{"a", dict({{"w", saved}})}}));
  const at::Tensor parameter = at::zeros({30, 20}).set_requires_grad(true);
  const void* memory = parameter.const_data_ptr();
  const auto version = parameter._version();
  const StateDict state = dict({{"a", dict({{"w", parameter}})}});
  const LoadResult loaded = load(state);
  EXPECT_TRUE(loaded.state.is(state));
  EXPECT_TRUE(state.at("a").toGenericDict().at("w").toTensor().is_same(parameter));
  EXPECT_EQ(parameter.const_data_ptr(), memory);
  EXPECT_TRUE(parameter.requires_grad());
  EXPECT_TRUE(parameter.is_leaf());
  EXPECT_GT(parameter._version(), version);
  EXPECT_EQ(bits(parameter), bits(saved));
}

TEST_P(InPlace, OnlyTheKeysOfTheStateAreLoaded) {
  save("it", sample_state());
  const StateDict state =
      dict({{"bias", at::zeros({257}, c10::kDouble)}, {"nested", dict({{"rate", 0.0}})}});
  const LoadResult loaded = load(state);
  EXPECT_TRUE(loaded.missing_keys.empty());
  expect_equal(
      dict({{"bias", tensor_at(sample_state(), "bias")}, {"nested", dict({{"rate", 1e-3}})}}),
      state, "state");
}

TEST_P(InPlace, NoneTakesWhatTheFileHas) {
  save("it", sample_state());
  const StateDict state = dict(
      {{"weight", IValue()}, {"nested", IValue()}, {"none", IValue()}, {"last", at::Tensor()}});
  load(state);
  const StateDict saved = sample_state();
  expect_equal(dict({{"weight", saved.at("weight")},
                     {"nested", saved.at("nested")},
                     {"none", IValue()},
                     {"last", saved.at("last")}}),
               state, "state");
}

TEST_P(InPlace, ScalarsAreReplaced) {
  save("it",
       dict({{"i", 5}, {"d", -0.0}, {"b", true}, {"s", "new"}, {"t", tuple({1, tuple({2.5})})}}));
  const StateDict state =
      dict({{"i", 1}, {"d", 0.0}, {"b", false}, {"s", "old"}, {"t", tuple({0, tuple({0.0})})}});
  load(state);
  expect_equal(
      dict({{"i", 5}, {"d", -0.0}, {"b", true}, {"s", "new"}, {"t", tuple({1, tuple({2.5})})}}),
      state, "state");
}

TEST_P(InPlace, AShorterListGetsTheMissingItems) {
  save("it", dict({{"l", list({1, noise({3}, c10::kFloat), "three"})}}));
  auto mine = make_state_list();
  mine.push_back(7);
  const StateDict state = dict({{"l", mine}});
  load(state);
  expect_equal(list({1, noise({3}, c10::kFloat), "three"}), IValue(mine), "l");
}

TEST_P(InPlace, ATypedListGetsOnlyItemsOfItsType) {
  save("it", dict({{"good", list({1, 2})}, {"bad", list({1, "two"})}}));
  c10::List<std::int64_t> good({5});
  load(dict({{"good", good}}));
  EXPECT_EQ(good, (c10::List<std::int64_t>({1, 2})));
  c10::List<std::int64_t> bad({5});
  const Error error = error_of([&] { load(dict({{"bad", bad}})); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(), HasSubstr("bad[1]"));
  EXPECT_EQ(bad, (c10::List<std::int64_t>({5})));
}

TEST_P(InPlace, TensorsInTuplesAreFilledInPlace) {
  save("it", dict({{"t", tuple({noise({4}, c10::kFloat), 3})}}));
  const at::Tensor mine = at::zeros({4});
  const StateDict state = dict({{"t", tuple({mine, 0})}});
  load(state);
  EXPECT_EQ(bits(mine), bits(noise({4}, c10::kFloat)));
  const auto& items = state.at("t").toTupleRef().elements();
  EXPECT_TRUE(items[0].toTensor().is_same(mine));
  EXPECT_EQ(items[1].toInt(), 3);
}

TEST_P(InPlace, AnyStrideOnEitherSideWillDo) {
  const at::Tensor base = noise({12, 10}, c10::kShort);
  const std::vector<std::pair<std::string, at::Tensor>> saved = {
      {"plain", base.clone()},
      {"transposed", base.t().contiguous().t()},
      {"sliced", noise({24, 20}, c10::kShort).slice(0, 0, 24, 2).slice(1, 1, 20, 2)},
      {"expanded", noise({1, 10}, c10::kShort).expand({12, 10})},
      {"offset", noise({20, 10}, c10::kShort).slice(0, 3, 15)},
  };
  StateDict state = make_state_dict();
  for (const auto& [key, tensor] : saved) state.insert_or_assign(key, tensor);
  save("it", state);
  const std::vector<std::function<at::Tensor()>> targets = {
      [] {
        return at::zeros({12, 10}, c10::kShort);
      },
      [] {
        return at::zeros({10, 12}, c10::kShort).t();
      },
      [] {
        return at::zeros({24, 30}, c10::kShort).slice(0, 1, 24, 2).slice(1, 0, 30, 3);
      },
  };
  for (const auto& make : targets) {
    StateDict mine = make_state_dict();
    for (const auto& [key, tensor] : saved) mine.insert_or_assign(key, make());
    load(mine);
    for (const auto& [key, tensor] : saved) {
      EXPECT_TRUE(bits(tensor_at(mine, key)) == bits(tensor)) << key;
    }
  }
  // What a strided target does not show stays as it was.
  const at::Tensor whole = at::zeros({12, 20}, c10::kShort);
  load(dict({{"plain", whole.slice(1, 0, 20, 2)}}));
  EXPECT_EQ(whole.slice(1, 1, 20, 2).abs().sum().item().toLong(), 0);
}

TEST_P(InPlace, AnExpandedTargetIsFilledFromAnExpandedTensor) {
  save("it", dict({{"both", noise({1, 4}, c10::kFloat).expand({3, 4})},
                   {"not", noise({3, 4}, c10::kFloat)}}));
  const at::Tensor mine = at::zeros({1, 4}).expand({3, 4});
  load(dict({{"both", mine}}));
  EXPECT_EQ(bits(mine), bits(noise({1, 4}, c10::kFloat).expand({3, 4})));
  EXPECT_EQ(error_of([&] { load(dict({{"not", mine}})); }).code(), ErrorCode::mismatch);
}

TEST_P(InPlace, LazyBitsOfTheTargetStay) {
  const at::Tensor values = noise({5, 3}, c10::kInt).to(c10::kComplexDouble);
  const at::Tensor reals = noise({6}, c10::kInt).to(c10::kDouble);
  save("it", dict({{"plain", values}, {"conj", at::_conj(values)}, {"neg", at::_neg_view(reals)}}));
  const at::Tensor conj = at::_conj(at::zeros({5, 3}, c10::kComplexDouble));
  const at::Tensor plain = at::zeros({5, 3}, c10::kComplexDouble);
  const at::Tensor negative = at::zeros({6}, c10::kDouble);
  load(dict({{"plain", conj}, {"conj", plain}, {"neg", negative}}));
  EXPECT_TRUE(conj.is_conj());
  EXPECT_FALSE(plain.is_conj());
  EXPECT_TRUE(conj.equal(values));
  EXPECT_TRUE(plain.equal(values.conj()));
  EXPECT_TRUE(negative.equal(reals.neg()));
}

TEST_P(InPlace, LazyBitsThatTorchCannotResolveAreAMismatch) {
  const at::Tensor values = noise({4}, c10::ScalarType::BComplex32);
  const at::Tensor first = at::zeros({2});
  save("it", dict({{"first", at::ones({2})}, {"a", dict({{"b", at::_conj(values)}})}}));
  const at::Tensor conj = at::_conj(noise({4}, c10::ScalarType::BComplex32, 2));
  load(dict({{"a", dict({{"b", conj}})}}));
  EXPECT_EQ(std::memcmp(conj.const_data_ptr(), values.const_data_ptr(), values.nbytes()), 0);
  const at::Tensor plain = at::empty({4}, c10::ScalarType::BComplex32);
  const Error error = error_of([&] {
    load(dict({{"first", first}, {"a", dict({{"b", plain}})}}));
  });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(), testing::HasSubstr("a.b"));
  EXPECT_TRUE(first.equal(at::zeros({2})));
}

TEST_P(InPlace, InferenceTensorsAreFilledWhateverTheirLazyBits) {
  const at::Tensor values = noise({5, 3}, c10::kInt).to(c10::kComplexDouble);
  save("it", dict({{"first", at::ones({2})}, {"plain", values}, {"conj", at::_conj(values)}}));
  const at::Tensor first = at::zeros({2});
  const auto [conj, plain] = [] {
    const c10::InferenceMode guard;
    return std::pair(at::_conj(at::zeros({5, 3}, c10::kComplexDouble)),
                     at::zeros({5, 3}, c10::kComplexDouble));
  }();
  ASSERT_TRUE(conj.is_inference() && plain.is_inference());
  load(dict({{"first", first}, {"plain", conj}, {"conj", plain}}));
  EXPECT_TRUE(first.equal(at::ones({2})));
  EXPECT_TRUE(conj.is_conj());
  EXPECT_EQ(bits(conj), bits(values));
  EXPECT_EQ(bits(plain), bits(values.conj()));
}

TEST_P(InPlace, WhatCannotBeFilledIsAMismatchBeforeAnythingIsChanged) {
  save("it", dict({{"first", at::ones({2})}, {"a", dict({{"b", at::ones({4})}})}}));
  at::Tensor shrunk = at::zeros({4});
  shrunk.storage().unsafeGetStorageImpl()->set_nbytes(8);
  const std::vector<std::pair<at::Tensor, std::string>> targets = {
      {nested_tensor(), "nested"},
      {shapeless_tensor(), "libtorch tells nothing of"},
      {shrunk, "beyond its storage of 8 bytes"},
      {freed_tensor(), "beyond its storage of 0 bytes"},
      {at::empty({4}, c10::kMeta), "meta"},
      {at::zeros({4}).to_sparse(), "layout Sparse"},
      {at::_efficientzerotensor({4}, c10::kFloat), "without memory"},
  };
  for (const auto& [target, why] : targets) {
    const at::Tensor first = at::zeros({2});
    const Error error = error_of([&, &tensor = target] {
      load(dict({{"first", first}, {"a", dict({{"b", tensor}})}}));
    });
    EXPECT_EQ(error.code(), ErrorCode::mismatch) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("key a.b "));
    EXPECT_THAT(error.what(), HasSubstr(why));
    EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
    EXPECT_TRUE(first.equal(at::zeros({2})));
  }
}

TEST_P(InPlace, TiedTargetsAreFilledOnceAndStayTied) {
  const at::Tensor saved = noise({100, 7}, c10::kFloat);
  save("it", dict({{"in", saved}, {"out", saved}}));
  const at::Tensor mine = at::zeros({100, 7});
  const StateDict state = dict({{"in", mine}, {"out", mine}});
  load(state);
  EXPECT_TRUE(tensor_at(state, "in").is_same(tensor_at(state, "out")));
  EXPECT_EQ(bits(mine), bits(saved));
}

TEST_P(InPlace, TiedTargetsMayBeFilledFromTensorsThatAreEqual) {
  const at::Tensor saved = noise({300, 100}, c10::kFloat);
  save("it", dict({{"in", saved}, {"out", saved.clone()}, {"turned", saved.t().contiguous()}}));
  const at::Tensor mine = at::zeros({300, 100});
  load(dict({{"in", mine}, {"out", mine}, {"turned", mine.t()}}));
  EXPECT_EQ(bits(mine), bits(saved));
}

TEST_P(InPlace, ViewsOfOneStorageMayBeFilledFromTensorsOfTheirOwn) {
  const at::Tensor saved = noise({40, 30}, c10::kFloat);
  save("it", dict({{"all", saved},
                   {"row", saved[3].clone()},
                   {"columns", saved.slice(1, 0, 30, 7).clone()},
                   {"odd", saved.slice(1, 1, 30, 2).clone()},
                   {"bytes", saved.view(c10::kByte)[5].clone()}}));
  const at::Tensor mine = at::zeros({40, 30});
  load(dict({{"row", mine[3]},
             {"bytes", mine.view(c10::kByte)[5]},
             {"columns", mine.slice(1, 0, 30, 7)},
             {"all", mine}}));
  EXPECT_EQ(bits(mine), bits(saved));
  // Views that lie between each other, and share nothing: whatever the file has for them.
  const at::Tensor between = at::zeros({40, 30});
  load(dict({{"odd", between.slice(1, 0, 30, 2)}, {"row", between.view({-1}).slice(0, 1, 60, 2)}}));
  EXPECT_EQ(bits(between.slice(1, 0, 30, 2)), bits(saved.slice(1, 1, 30, 2)));
  EXPECT_EQ(bits(between.view({-1}).slice(0, 1, 60, 2)), bits(saved[3]));
}

TEST_P(InPlace, TargetsInTheSameMemoryForWhichTheFileDiffersAreAMismatch) {
  const at::Tensor first = noise({300, 100}, c10::kFloat, 1);
  at::Tensor second = first.clone();
  second[299][99] = 1.5;
  save("it", dict({{"first", first}, {"second", second}, {"last", second[299].clone()}}));
  const at::Tensor mine = at::zeros({300, 100});
  const auto version = mine._version();
  struct Case {
    StateDict state;
    std::string keys;
  };
  const std::vector<Case> cases = {
      {dict({{"second", mine}, {"first", mine}}),
       "key second .* in the same memory as first, for which the file has other values"},
      {dict({{"a", IValue()}, {"first", mine}, {"last", mine[299]}}),
       "key last .* in the same memory as first"},
      {dict({{"second", mine.t().t()}, {"first", at::_neg_view(mine)}}),
       "key second .* in the same memory as first"},
  };
  for (const Case& one : cases) {
    for (const bool verify : {true, false}) {
      const Error error = error_of([&] { load(one.state, {.verify_checksums = verify}); });
      EXPECT_EQ(error.code(), ErrorCode::mismatch) << error.what();
      EXPECT_THAT(error.what(), testing::ContainsRegex(one.keys));
      EXPECT_EQ(mine._version(), version);
      EXPECT_EQ(mine.abs().sum().item().toDouble(), 0);
    }
  }
  // The parts in which they agree.
  load(dict({{"first", mine}}));
  const at::Tensor rows = at::zeros({300, 100});
  save("rows", dict({{"first", first.slice(0, 0, 200).clone()},
                     {"second", second.slice(0, 100, 299).clone()}}));
  checkpointer->load(directory / "rows",
                     dict({{"first", rows.slice(0, 0, 200)}, {"second", rows.slice(0, 100, 299)}}));
  EXPECT_EQ(bits(rows.slice(0, 0, 299)), bits(first.slice(0, 0, 299)));
}

TEST_P(InPlace, ATargetThatLiesInItsOwnMemoryGetsWhatFitsTogetherOnly) {
  const at::Tensor saved = noise({3, 2}, c10::kFloat);
  const at::Tensor base = noise({4}, c10::kFloat);
  const at::Tensor windows = base.unfold(0, 2, 1);
  save("it",
       dict({{"first", base}, {"odd", saved}, {"same", windows.contiguous()}, {"as", windows}}));
  const at::Tensor first = at::zeros({4});
  const at::Tensor mine = at::zeros({4});
  const auto version = mine._version();
  const StateDict state = dict({{"first", first}, {"odd", mine.as_strided({3, 2}, {1, 1})}});
  const Error error = error_of([&] { load(state); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(), testing::ContainsRegex(
                                "key odd .* its elements lie in the same memory, for which the "
                                "file has several values; nothing of the state was changed"));
  EXPECT_EQ(mine._version(), version);
  for (const at::Tensor& untouched : {first, mine}) EXPECT_TRUE(untouched.equal(at::zeros({4})));

  for (const char* key : {"same", "as"}) {
    const at::Tensor filled = at::zeros({4});
    load(dict({{key, filled.unfold(0, 2, 1)}}));
    EXPECT_EQ(bits(filled), bits(base)) << key;
  }
  // Rows that only look as if they met each other.
  const at::Tensor between = at::zeros({8});
  load(dict({{"odd", between.as_strided({3, 2}, {2, 3})}}));
  EXPECT_EQ(bits(between.as_strided({3, 2}, {2, 3})), bits(saved));
}

TEST_P(InPlace, TargetsOfTheSameStepsAreComparedByTheirBytes) {
  // Columns, rows and all of it at once, one of them from elsewhere.
  const at::Tensor saved = noise({64, 48}, c10::kFloat);
  const at::Tensor other = saved.clone();
  const auto views = [](const at::Tensor& all, const at::Tensor& last) {
    StateDict made = make_state_dict();
    for (int i = 0; i < 48; i += 5) {
      made.insert_or_assign("column" + std::to_string(i), all.slice(1, i, i + 3));
      made.insert_or_assign("row" + std::to_string(i), all.slice(0, i, i + 17));
      made.insert_or_assign("turned" + std::to_string(i), all.t().slice(0, i, i + 2));
    }
    made.insert_or_assign("last", last);
    return made;
  };
  for (const bool differs : {false, true}) {
    if (differs) other[63][46] = 0.5;  // in column45 and turned45
    save("it", views(saved, other.slice(0, 60)));
    const at::Tensor mine = at::zeros({64, 48});
    const StateDict state = views(mine, mine.slice(0, 60));
    if (!differs) {
      load(state);
      EXPECT_TRUE(mine.view(c10::kInt).equal(saved.view(c10::kInt)));
      continue;
    }
    const Error error = error_of([&] { load(state); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_THAT(error.what(),
                testing::ContainsRegex("key last .* same memory as (column45|turned45),"));
    EXPECT_TRUE(mine.equal(at::zeros({64, 48})));
  }
}

TEST_P(InPlace, AContainerUnderTwoKeysIsChangedOnce) {
  const auto items = [] { return list({0, 1, noise({3}, c10::kFloat), dict({{"x", 2}})}); };
  const auto options = [] {
    return dict({{"lr", 0.5},
                 {"name", "new"},
                 {"betas", tuple({0.5, list({1, 2})})},
                 {"more", dict({{"y", noise({5}, c10::kLong)}})},
                 {"kept", 7}});
  };
  save("it", dict({{"a", dict({{"l", items()}, {"d", options()}})},
                   {"b", dict({{"l", items()}, {"d", options()}})}}));
  auto shared_list = make_state_list();
  shared_list.push_back(0);
  auto in_tuple = make_state_list();
  in_tuple.push_back(1);
  const StateDict shared_dict = dict({{"lr", 0.1},
                                      {"name", "old"},
                                      {"betas", tuple({0.9, in_tuple})},
                                      {"more", IValue()},
                                      {"kept", 7}});
  const StateDict inner = dict({{"l", shared_list}, {"d", shared_dict}});
  for (const StateDict& state : {dict({{"a", inner}, {"b", inner}}),
                                 dict({{"a", dict({{"l", shared_list}, {"d", shared_dict}})},
                                       {"b", dict({{"l", shared_list}, {"d", shared_dict}})}})}) {
    EXPECT_TRUE(load(state).missing_keys.empty());
    expect_equal(items(), IValue(shared_list), "l");
    expect_equal(options(), shared_dict, "d");
    EXPECT_EQ(in_tuple.size(), 2u);
    // And as it was, for the next.
    shared_list.resize(1);
    in_tuple.resize(1);
    shared_dict.insert_or_assign("lr", 0.1);
    shared_dict.insert_or_assign("more", IValue());
  }
}

TEST_P(InPlace, WhatOnlyOneOfTwoKeysOfAContainerHasIsTaken) {
  save("it", dict({{"a", dict({{"x", 1}})}, {"b", dict({{"y", 2}})}}));
  const StateDict shared = dict({{"x", 0}, {"y", 0}});
  EXPECT_THAT(load(dict({{"a", shared}, {"b", shared}})).missing_keys, ElementsAre("a.y", "b.x"));
  expect_equal(dict({{"x", 1}, {"y", 2}}), shared, "shared");
}

TEST_P(InPlace, AContainerUnderTwoKeysForWhichTheFileDiffersIsAMismatch) {
  const at::Tensor one = noise({3}, c10::kFloat, 1);
  const at::Tensor other = noise({3}, c10::kFloat, 2);
  struct Case {
    IValue mine;  ///< under a, b and c
    IValue first;
    IValue second;
    std::string key;  ///< below these
  };
  const auto cases = [&]() -> std::vector<Case> {
    return {
        {dict({{"lr", 0.1}}), dict({{"lr", 0.2}}), dict({{"lr", 0.3}}), ".lr"},
        {dict({{"lr", 0.1}}), dict({{"lr", 0.1}}), dict({{"lr", 0.3}}), ".lr"},  // as it is
        {dict({{"lr", 0.1}}), dict({{"lr", 0.3}}), dict({{"lr", 0.1}}), ".lr"},
        {dict({{"s", "x"}}), dict({{"s", "y"}}), dict({{"s", "z"}}), ".s"},
        {dict({{"n", IValue()}}), dict({{"n", 1}}), dict({{"n", 2}}), ".n"},
        {dict({{"n", IValue()}}), dict({{"n", 1}}), dict({{"n", IValue()}}), ".n"},
        {dict({{"n", IValue()}}), dict({{"n", dict({{"x", list({1})}})}}),
         dict({{"n", dict({{"x", list({2})}})}}), ".n"},
        {dict({{"n", IValue()}}), dict({{"n", dict({{"x", 1}})}}),
         dict({{"n", dict({{"x", 1}, {"y", 1}})}}), ".n"},
        {dict({{"n", IValue()}}), dict({{"n", one}}), dict({{"n", other}}), ".n"},
        {dict({{"n", IValue()}}), dict({{"n", list({one})}}), dict({{"n", list({other})}}), ".n"},
        {list({0}), list({0, 1}), list({0, 2}), "[1]"},
        {list({0}), list({0, 1}), list({0, 1, 2}), ""},
        {list({0}), list({0, one}), list({0, other}), "[1]"},
        {list({list({0})}), list({list({0, 1})}), list({list({0})}), "[0]"},
        {dict({{"t", tuple({1, 2})}}), dict({{"t", tuple({1, 3})}}), dict({{"t", tuple({1, 4})}}),
         ".t[1]"},
        {dict({{"w", at::zeros({3})}}), dict({{"w", one}}), dict({{"w", other}}), ".w"},
    };
  };
  const std::size_t count = cases().size();
  for (std::size_t i = 0; i < count; ++i) {
    const Case now = cases()[i];
    const std::string name = std::to_string(i);
    save(name, dict({{"a", now.first}, {"b", now.second}, {"c", now.first}}));
    const Error error = error_of([&] {
      checkpointer->load(directory / name,
                         dict({{"a", now.mine}, {"b", now.mine}, {"c", now.mine}}));
    });
    EXPECT_EQ(error.code(), ErrorCode::mismatch) << i << ": " << error.what();
    EXPECT_THAT(error.what(), HasSubstr("key b" + now.key + " ")) << i;
    EXPECT_THAT(error.what(), HasSubstr(" as a" + now.key)) << i;
    expect_equal(cases()[i].mine, now.mine, name);
  }
}

TEST_P(InPlace, UntiedTargetsAreEachFilledFromASharedStorage) {
  // 24 MB: larger than the window that such a record is read through.
  const at::Tensor saved = noise({3000, 2000}, c10::kFloat);
  const at::Tensor rows = saved.slice(0, 1000, 1100);
  save("it", dict({{"in", saved},
                   {"out", saved},
                   {"rows", rows},
                   {"column", saved.select(1, 3)},
                   {"new", saved}}));
  const at::Tensor in = at::zeros({3000, 2000});
  const at::Tensor out = at::zeros({2000, 3000}).t();
  const at::Tensor mine = at::zeros({100, 2000});
  const at::Tensor column = at::zeros({3000});
  const StateDict state =
      dict({{"in", in}, {"out", out}, {"rows", mine}, {"column", column}, {"new", IValue()}});
  load(state);
  EXPECT_TRUE(at::equal(in.view(c10::kInt), saved.view(c10::kInt)));
  EXPECT_TRUE(at::equal(out.view(c10::kInt), saved.view(c10::kInt)));
  EXPECT_TRUE(at::equal(mine.view(c10::kInt), rows.view(c10::kInt)));
  EXPECT_TRUE(at::equal(column.view(c10::kInt), saved.select(1, 3).view(c10::kInt)));
  EXPECT_TRUE(at::equal(tensor_at(state, "new").view(c10::kInt), saved.view(c10::kInt)));
}

TEST_P(InPlace, ALargeTensorOfAnotherLayoutIsReadInPieces) {
  const at::Tensor saved = noise({5000, 1500}, c10::kFloat).t();
  const at::Tensor cube = noise({100, 3, 30000}, c10::kShort).permute({2, 0, 1});
  save("it", dict({{"w", saved}, {"cube", cube}}));
  for (const bool verify : {true, false}) {
    const at::Tensor mine = at::zeros({1500, 5000});
    const at::Tensor mine_cube = at::zeros({30000, 100, 3}, c10::kShort);
    load(dict({{"w", mine}, {"cube", mine_cube}}), {.verify_checksums = verify});
    EXPECT_TRUE(at::equal(mine.view(c10::kInt), saved.view(c10::kInt)));
    EXPECT_TRUE(at::equal(mine_cube, cube));
  }
}

TEST_P(InPlace, APartOfAStorageCanBeLoadedAlone) {
  const at::Tensor base = noise({1'000'000}, c10::kFloat);
  save("it",
       dict({{"head", base.slice(0, 0, 10)}, {"tail", base.slice(0, 999'001, 1'000'000, 2)}}));
  for (const bool verify : {true, false}) {
    const at::Tensor head = at::zeros({10});
    const at::Tensor tail = at::zeros({500});
    load(dict({{"tail", tail}, {"head", head}}), {.verify_checksums = verify});
    EXPECT_EQ(bits(head), bits(base.slice(0, 0, 10)));
    EXPECT_EQ(bits(tail), bits(base.slice(0, 999'001, 1'000'000, 2)));
  }
}

/// Bytes that this process has read by system calls so far.
std::uint64_t bytes_read() {
  std::ifstream io("/proc/self/io");
  std::string word;
  std::uint64_t count = 0;
  io >> word >> count;  // "rchar:"
  return count;
}

TEST_P(InPlace, AStorageIsReadOnceHoweverManyTensorsViewIt) {
  const at::Tensor saved = noise({3000, 2000}, c10::kFloat);
  const std::uint64_t file =
      save("it", dict({{"a", saved}, {"b", saved.t()}, {"c", saved.slice(0, 10, 20)}})).bytes;
  const StateDict state =
      dict({{"a", IValue()}, {"b", at::zeros({2000, 3000})}, {"c", at::zeros({10, 2000})}});
  const std::uint64_t before = bytes_read();
  load(state);
  EXPECT_LT(bytes_read() - before, file + (256 << 10));
}

TEST_P(InPlace, WithoutChecksumsOnlyWhatWasAskedForIsRead) {
  const at::Tensor saved = noise({3000, 2000}, c10::kFloat);
  save("it",
       dict({{"rows", saved.slice(0, 1500, 1502)}, {"other", noise({1 << 20}, c10::kFloat)}}));
  const StateDict state = dict({{"rows", at::zeros({2, 2000})}});
  const std::uint64_t before = bytes_read();
  load(state, {.verify_checksums = false});
  EXPECT_LT(bytes_read() - before, 256u << 10);
  EXPECT_EQ(bits(tensor_at(state, "rows")), bits(saved.slice(0, 1500, 1502)));
}

TEST_P(InPlace, MissingKeysAreReported) {
  save("it", dict({{"a", dict({{"b", list({dict({{"x", 1}})})}})}}));
  const StateDict state =
      dict({{"a", dict({{"b", list({dict({{"c", 5}, {"x", 0}})})}, {"d", IValue()}})}, {7, 1}});
  EXPECT_THAT(load(state).missing_keys, ElementsAre("a.b[0].c", "a.d", "7"));
  EXPECT_EQ(state.at("a").toGenericDict().at("b").toListRef()[0].toGenericDict().at("x").toInt(),
            1);
}

TEST_P(InPlace, StrictNamesMissingKeysAndChangesNothing) {
  save("it", dict({{"w", at::ones({2})}, {"n", 1}}));
  const StateDict state = dict({{"w", at::zeros({2})}, {"n", 0}, {"gone", 1}, {"lost", dict({})}});
  const Error error = error_of([&] { load(state, {.strict = true}); });
  EXPECT_EQ(error.code(), ErrorCode::missing_key);
  EXPECT_THAT(error.what(), HasSubstr("gone, lost"));
  expect_equal(dict({{"w", at::zeros({2})}, {"n", 0}, {"gone", 1}, {"lost", dict({})}}), state,
               "state");
}

TEST_P(InPlace, AMismatchNamesTheKeyAndChangesNothing) {
  save("it", dict({{"first", at::ones({2})},
                   {"deep", dict({{"list", list({at::ones({2, 3}), 1, 2.5, true, "s", IValue()})},
                                  {"pair", tuple({1, 2})},
                                  {"dict", dict({})}})}}));
  const auto in_list = [](std::size_t index, const IValue& other) {
    auto items = make_state_list();
    for (std::size_t i = 0; i < index; ++i) items.push_back(IValue());
    items.push_back(other);
    return dict({{"list", items}});
  };
  struct Case {
    StateDict deep;
    std::string key;
  };
  const std::vector<Case> cases = {
      {in_list(0, at::zeros({3, 2})), "deep.list[0]"},              // shape
      {in_list(0, at::zeros({2})), "deep.list[0]"},                 // dimensions
      {in_list(0, at::zeros({2, 3}, c10::kHalf)), "deep.list[0]"},  // dtype
      {in_list(0, at::empty({2, 3}, c10::kMeta)), "deep.list[0]"},  // no memory
      {in_list(0, at::zeros({2, 3}).to_sparse()), "deep.list[0]"},  // layout
      {in_list(0, 5), "deep.list[0]"},                              // kinds
      {in_list(1, 1.0), "deep.list[1]"},
      {in_list(2, 1), "deep.list[2]"},
      {in_list(3, 1), "deep.list[3]"},
      {in_list(4, at::zeros({1})), "deep.list[4]"},
      {in_list(5, 1), "deep.list[5]"},
      {in_list(6, IValue()), "deep.list"},  // longer than the file's
      {dict({{"pair", tuple({1})}}), "deep.pair"},
      {dict({{"pair", list({1, 2})}}), "deep.pair"},
      {dict({{"list", dict({})}}), "deep.list"},
      {dict({{"dict", tuple({})}}), "deep.dict"},
  };
  for (const Case& one : cases) {
    const at::Tensor first = at::zeros({2});
    const auto version = first._version();
    const Error error = error_of([&] { load(dict({{"first", first}, {"deep", one.deep}})); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("key " + one.key + " ")) << error.what();
    EXPECT_EQ(first._version(), version) << error.what();
    EXPECT_EQ(first.sum().item().toDouble(), 0) << error.what();
  }
}

TEST_P(InPlace, AnyNumberOfThreadsReads) {
  const at::Tensor saved = noise({5, 1 << 20}, c10::kFloat);
  save("it", dict({{"w", saved}, {"b", noise({10}, c10::kFloat)}}));
  for (const unsigned threads : {1u, 3u, 256u}) {
    const StateDict state = dict({{"w", at::zeros({5, 1 << 20})}, {"b", at::zeros({10})}});
    load(state, {.threads = threads});
    EXPECT_TRUE(at::equal(tensor_at(state, "w").view(c10::kInt), saved.view(c10::kInt)));
    EXPECT_EQ(bits(tensor_at(state, "b")), bits(noise({10}, c10::kFloat)));
  }
  const Error error = error_of([&] { load(dict({}), {.threads = 257}); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_THAT(error.what(), HasSubstr("LoadOptions::threads must be at most 256"));
}

/// Turns over one byte of a payload.
void damage(const std::string& file, const at::Tensor& payload) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  const std::size_t at = bytes.find(bits(payload));
  ASSERT_NE(at, std::string::npos);
  stream.seekp(static_cast<std::streamoff>(at + payload.nbytes() / 2));
  stream.put(static_cast<char>(bytes[at + payload.nbytes() / 2] ^ 1));
}

class Damaged : public InPlace {
 protected:
  void SetUp() override {
    const StateDict saved = dict({{"one", noise({100}, c10::kFloat, 1)},
                                  {"two", dict({{"w", noise({100}, c10::kFloat, 2)}})},
                                  {"three", noise({100}, c10::kFloat, 3)},
                                  {"n", 1}});
    damage(save("it", saved).path, noise({100}, c10::kFloat, 2));
  }
  StateDict state = dict({{"one", at::zeros({100})},
                          {"two", dict({{"w", at::zeros({100})}})},
                          {"three", at::zeros({100})},
                          {"n", 0}});
};
CKPTRING_ALL_PATHS(Damaged);

TEST_P(Damaged, ThePayloadIsNamedWithTheKeysAlreadyOverwritten) {
  const Error error = error_of([&] { load(state); });
  EXPECT_EQ(error.code(), ErrorCode::damaged);
  EXPECT_THAT(error.what(), HasSubstr("key two.w "));
  EXPECT_THAT(error.what(), HasSubstr("already overwritten: one, two.w"));
  EXPECT_EQ(bits(tensor_at(state, "one")), bits(noise({100}, c10::kFloat, 1)));
  EXPECT_EQ(tensor_at(state, "three").sum().item().toDouble(), 0);
  EXPECT_EQ(state.at("n").toInt(), 0);
}

TEST_P(Damaged, EveryKeyOfATensorThatWasOverwrittenIsNamed) {
  const at::Tensor saved = noise({3'000'000}, c10::kFloat);  // more than is checked at once
  damage(save("it", dict({{"in", saved}, {"out", saved}})).path, saved);
  const at::Tensor mine = at::zeros({3'000'000});
  const auto version = mine._version();
  const Error error = error_of([&] { load(dict({{"in", mine}, {"out", mine}})); });
  EXPECT_THAT(error.what(), HasSubstr("already overwritten: in, out"));
  EXPECT_GT(mine._version(), version);
}

TEST_P(Damaged, CheckingFirstChangesNothing) {
  const auto version = tensor_at(state, "one")._version();
  const Error error = error_of([&] { load(state, {.verify_first = true}); });
  EXPECT_EQ(error.code(), ErrorCode::damaged);
  EXPECT_THAT(error.what(), HasSubstr("key two.w "));
  EXPECT_THAT(error.what(), HasSubstr("nothing of the state was changed"));
  EXPECT_EQ(tensor_at(state, "one")._version(), version);
  EXPECT_EQ(tensor_at(state, "one").sum().item().toDouble(), 0);
}

TEST_P(Damaged, WhatWasNotAskedForIsNotRead) {
  load(dict({{"one", at::zeros({100})}, {"three", IValue()}}));
}

TEST_P(Damaged, ChecksumsCanBeTurnedOff) {
  load(state, {.verify_checksums = false});
  EXPECT_EQ(bits(tensor_at(state, "three")), bits(noise({100}, c10::kFloat, 3)));
}

TEST_P(Damaged, AFullLoadNamesTheKeyToo) {
  const Error error = error_of([&] { (void)checkpointer->load(directory / "it"); });
  EXPECT_EQ(error.code(), ErrorCode::damaged);
  EXPECT_THAT(error.what(), HasSubstr("key two.w "));
}

/// Thousands of loads of one small file, which is the same whoever wrote it: one path will do.
class DamagedAnywhere : public InPlace {};
INSTANTIATE_TEST_SUITE_P(Path, DamagedAnywhere, testing::Values(Path::sync),
                         testing::PrintToStringParamName());

TEST_P(DamagedAnywhere, OutsideThePayloadsChangesNothing) {
  const at::Tensor one = noise({100}, c10::kFloat, 1);
  const at::Tensor two = noise({100}, c10::kFloat, 2);
  const std::string file =
      save("it", dict({{"one", one}, {"two", dict({{"w", two}})}, {"n", 1}})).path;
  std::ifstream in(file, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  const auto fresh = [] {
    return dict({{"one", at::zeros({100})}, {"two", dict({{"w", at::zeros({100})}})}, {"n", 0}});
  };
  StateDict state = fresh();
  const auto holds = [&](const at::Tensor& first, const at::Tensor& second, std::int64_t number) {
    return bits(tensor_at(state, "one")) == bits(first) &&
           bits(tensor_at(state.at("two").toGenericDict(), "w")) == bits(second) &&
           state.at("n").toInt() == number;
  };
  const at::Tensor zeros = at::zeros({100});
  int refused = 0;
  const auto try_load = [&](const std::string& damaged, std::size_t at) {
    std::ofstream(file, std::ios::binary) << damaged;
    try {
      load(state);
      ASSERT_TRUE(holds(one, two, 1)) << "read as something else, damaged at " << at;
      state = fresh();
    } catch (const Error& error) {
      ++refused;
      ASSERT_TRUE(holds(zeros, zeros, 0)) << "damaged at " << at << ": " << error.what();
    }
  };
  const std::size_t in_one = bytes.find(bits(one));
  const std::size_t in_two = bytes.find(bits(two));
  ASSERT_TRUE(in_one != std::string::npos && in_two != std::string::npos);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    if (at - in_one < one.nbytes() || at - in_two < two.nbytes()) continue;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
    ASSERT_NO_FATAL_FAILURE(try_load(bytes, at));
    bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
  }
  EXPECT_GT(refused, 500);
  for (std::size_t at = 0; at < bytes.size(); at += 13) {
    const int before = refused;
    ASSERT_NO_FATAL_FAILURE(try_load(bytes.substr(0, at), at));
    ASSERT_EQ(refused, before + 1) << "cut off at " << at;
  }
}

TEST_P(InPlace, NewTensorsGoToTheDeviceAskedFor) {
  save("it", dict({{"new", noise({300, 9}, c10::kFloat)}, {"mine", at::ones({2})}}));
  const StateDict state = dict({{"new", IValue()}, {"mine", at::zeros({2})}});
  load(state, {.default_map_location = c10::Device(c10::kMeta)});
  EXPECT_TRUE(tensor_at(state, "new").is_meta());
  EXPECT_EQ(tensor_at(state, "new").sizes(), (c10::IntArrayRef{300, 9}));
  EXPECT_EQ(tensor_at(state, "mine").sum().item().toDouble(), 2);
  // A device that this process has no backend for.
  const Error error = error_of([&] {
    load(dict({{"new", IValue()}}), {.default_map_location = c10::Device(c10::kMPS, 0)});
  });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_THAT(error.what(), HasSubstr("mps"));
}

TEST_P(InPlace, AFileOfAnotherWorldSizeIsRefusedUnlessAllowed) {
  make_checkpointer(GetParam(), small_ring(), {0, 4})
      ->save(directory / "it", dict({{"x", 1}}))
      .written.get();
  const StateDict state = dict({{"x", 0}});
  const Error error = error_of([&] { load(state); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(), HasSubstr("4 ranks"));
  EXPECT_EQ(state.at("x").toInt(), 0);
  load(state, {.allow_other_world_size = true});
  EXPECT_EQ(state.at("x").toInt(), 1);
}

}  // namespace
}  // namespace ckptring::test
