// A thread with a small stack saves a state that is as deep as a state may be.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "contract/contract.h"
#include "contract/states.h"
#include "support/small_stack.h"

namespace ckptring::test {
namespace {

/// As deep as the limit allows, below the state itself.
constexpr unsigned kDeep = 500;

c10::IValue within(unsigned kind, const c10::IValue& inner) {
  switch (kind % 3) {
    case 0:
      return dict({{"k", inner}});
    case 1:
      return list({inner});
    default:
      return c10::ivalue::Tuple::create(std::vector<c10::IValue>{inner});
  }
}

/// @param kind_at of the container at each level: 0 a dict, 1 a list, 2 a tuple
StateDict nested(unsigned levels, const std::function<unsigned(unsigned)>& kind_at,
                 const at::Tensor& innermost) {
  c10::IValue value = innermost;
  for (unsigned level = levels; level > 0; --level) value = within(kind_at(level), value);
  return dict({{"deep", value}});
}

class SmallStack : public Contract {
 protected:
  void SetUp() override { save("first", sample_state()); }  // what libtorch makes once

  const std::vector<std::function<unsigned(unsigned)>> kinds_{
      [](unsigned) { return 0U; }, [](unsigned) { return 1U; }, [](unsigned) { return 2U; },
      [](unsigned level) { return level; }};
};
CKPTRING_ALL_PATHS(SmallStack);

TEST_P(SmallStack, SavesTheDeepestState) {
  for (const auto& kind_at : kinds_) {
    const at::Tensor innermost = noise({3}, c10::kFloat);
    const StateDict state = nested(kDeep, kind_at, innermost);
    const StateDict there = placed(state);
    std::optional<SaveHandle> handle;
    on_small_stack([&] { handle = checkpointer->save(directory / "deep", there); });
    train_on(*handle, there);
    (void)handle->written.get();
    expect_equal(state, checkpointer->load(directory / "deep").state, "state");
  }
}

TEST_P(SmallStack, RefusesADeeperOneByItsKey) {
  for (const auto& kind_at : kinds_) {
    const StateDict there = placed(nested(kDeep + 100, kind_at, at::zeros({1})));
    std::optional<Error> error;
    on_small_stack(
        [&] { error = error_of([&] { (void)checkpointer->save(directory / "deeper", there); }); });
    EXPECT_EQ(error->code(), ErrorCode::unsupported_value);
    EXPECT_NE(std::string(error->what()).find("deep"), std::string::npos) << error->what();
  }
}

}  // namespace
}  // namespace ckptring::test
