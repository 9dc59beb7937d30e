// A load is refused memory at any moment.
#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ckptring/checkpointer.h>
#include <ckptring/error.h>
#include <ckptring/reader.h>
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/failing_allocations.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ckptring::test {
namespace {

using ::testing::HasSubstr;

using c10::IValue;

constexpr const char* kThreads = "ckptring-load";
constexpr std::size_t kFromThenOn = 1'000'000'000;

IValue tuple(std::vector<IValue> items) { return c10::ivalue::Tuple::create(std::move(items)); }
IValue list(const std::vector<IValue>& items) {
  auto made = make_state_list();
  for (const IValue& item : items) made.push_back(item);
  return made;
}

/// Something of each kind that a load treats in a way of its own.
StateDict saved_state() {
  StateDict state = make_state_dict();
  const at::Tensor shared = at::arange(4, c10::kFloat);
  state.insert_or_assign("plain", at::arange(1000, c10::kFloat));
  state.insert_or_assign("turned", at::arange(6, c10::kFloat).view({2, 3}));
  state.insert_or_assign("tied", shared);
  state.insert_or_assign("tied too", at::arange(4, c10::kFloat));
  state.insert_or_assign("wanted", tuple({list({shared, "text"}), at::ones({3})}));
  state.insert_or_assign("list", list({1, "x", at::ones({3}), 2.5, true}));
  state.insert_or_assign("tuple", tuple({1, "y"}));
  state.insert_or_assign(7, list({list({}), at::zeros({0})}));
  return state;
}

/// A state to load it into, which holds something else.
struct Target {
  at::Tensor plain = at::zeros({1000});
  at::Tensor turned = at::zeros({3, 2}).t();
  at::Tensor tied = at::zeros({4});
  c10::impl::GenericList items = make_state_list();
  StateDict state = make_state_dict();

  Target() {
    state.insert_or_assign("plain", plain);
    state.insert_or_assign("turned", turned);
    state.insert_or_assign("tied", tied);
    state.insert_or_assign("tied too", tied);
    state.insert_or_assign("wanted", IValue());
    state.insert_or_assign("list", items);
    state.insert_or_assign("tuple", tuple({0, "y"}));
    state.insert_or_assign("not there", 1);
  }

  /// Which of what the load changes is as it was, and which as in the file.
  [[nodiscard]] std::vector<bool> changed() const {
    return {
        plain[1].item<float>() != 0,  turned[0][1].item<float>() != 0,
        tied[1].item<float>() != 0,   !items.empty(),
        !state.at("wanted").isNone(), state.at("tuple").toTupleRef().elements()[0].toInt() != 0};
  }
};

class FailingLoad : public ::testing::Test {
 protected:
  FailingLoad() {
    // As the threads of a load: memory is refused to this one as well.
    EXPECT_EQ(::pthread_setname_np(::pthread_self(), "ckptring-load-t"), 0);
    const auto checkpointer = make_sync_checkpointer();
    const SaveOptions options{
        .step = 5,
        .metadata = {{"run", std::string(40, 'a')}, {"loss", 0.5}, {"best", INFINITY}, {"n", 3L}}};
    checkpointer->save(path_, saved_state(), options).written.get();
    Target warm;  // what libtorch makes once
    (void)read(warm.state);
    (void)read(std::nullopt);
  }

  [[nodiscard]] LoadResult read(const std::optional<StateDict>& state) const {
    return CheckpointReader().read(path_, state, {.threads = 2});
  }

  /// Whether an allocation was refused; else there are none left to refuse.
  bool refuse(std::size_t nth, std::size_t count, bool in_place) {
    Target target;
    std::optional<StateDict> state;
    if (in_place) state = target.state;
    std::size_t loaded = 0;
    std::exception_ptr thrown;
    std::optional<Error> error;
    bool no_words = false;
    bool failed = false;
    {
      const FailingAllocation failing(kThreads, nth, count);
      try {
        loaded = read(state).state.size();
      } catch (...) {
        thrown = std::current_exception();
      }
      failed = failing.failed();
    }
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& of_ours) {
      error = of_ours;
    } catch (const std::bad_alloc&) {
      no_words = true;
    }
    EXPECT_EQ(loaded, thrown ? 0U : 8U);
    EXPECT_FALSE(no_words && count == 1) << "an error of ours has words";
    if (error) {
      EXPECT_EQ(error->code(), ErrorCode::out_of_memory) << error->what();
      EXPECT_THAT(error->what(), HasSubstr(path_));
      ++refused_;
    }
    if (in_place && !no_words) {
      const std::vector<bool> changed = target.changed();
      const bool some = std::ranges::find(changed, true) != changed.end();
      const bool all = std::ranges::find(changed, false) == changed.end();
      if (!error) {
        EXPECT_TRUE(all);
      } else if (some) {
        EXPECT_THAT(error->what(), HasSubstr("already overwritten: "));
        ++partly_;
      }
    }
    return failed;
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "it";
  int refused_ = 0;
  int partly_ = 0;
};

TEST_F(FailingLoad, AnywhereIsAnErrorThatSaysWhatWasOverwritten) {
  for (const bool in_place : {false, true}) {
    for (const std::size_t count : {std::size_t{1}, kFromThenOn}) {
      refused_ = partly_ = 0;
      std::size_t nth = 0;
      for (; refuse(nth, count, in_place); ++nth) {
        if (HasFailure()) {
          ADD_FAILURE() << "allocation " << nth << " of " << (in_place ? "a load in place" : "all");
          return;
        }
      }
      EXPECT_GT(nth, 200U);
      if (count == 1) {
        EXPECT_GT(refused_, 200);
        EXPECT_EQ(partly_ > 0, in_place);
      }
    }
  }
}

}  // namespace
}  // namespace ckptring::test
