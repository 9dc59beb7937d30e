#include "save/state_shape.h"

#include "support/gpt2_state.h"

#include <ATen/Functions.h>

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace bench {
namespace {

constexpr double kSmallTensors = 20'000;
constexpr std::int64_t kSmallElements = (16 << 10) / sizeof(float);
constexpr int kLargeTensors = 4;
constexpr std::int64_t kLargeElements = (1 << 30) / sizeof(float);

/// `count` tensors of `elements` each, in one dictionary as a model's parameters are.
SavedState make_even(std::int64_t count, std::int64_t elements) {
  SavedState made{ckptring::make_state_dict(), {}, 0};
  ckptring::StateDict model = ckptring::make_state_dict();
  for (std::int64_t i = 0; i < count; ++i) {
    const at::Tensor tensor = at::empty({elements}, at::kFloat).uniform_(-1, 1);
    model.insert_or_assign("layers." + std::to_string(i) + ".weight", tensor);
    made.payloads.emplace_back(static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes());
  }
  made.dict.insert_or_assign("model", model);
  return made;
}

SavedState make_gpt2(double scale) {
  Gpt2State made = make_gpt2_state(scale);
  return {made.state, std::move(made.payloads), 0};
}

SavedState make_state(const StateSpec& spec) {
  SavedState made =
      spec.shape == Shape::gpt2 ? make_gpt2(spec.scale)
      : spec.shape == Shape::small
          ? make_even(std::max<std::int64_t>(1, std::llround(kSmallTensors * spec.scale)),
                      kSmallElements)
          : make_even(kLargeTensors,
                      std::max<std::int64_t>(
                          1, std::llround(static_cast<double>(kLargeElements) * spec.scale)));
  for (const auto& payload : made.payloads) made.bytes += payload.size();
  return made;
}

void describe_into(nlohmann::json& list, const nlohmann::json& path, const c10::IValue& value) {
  if (value.isTensor()) {
    list.push_back({{"path", path}, {"sizes", value.toTensor().sizes().vec()}});
  } else if (value.isInt()) {
    list.push_back({{"path", path}, {"value", value.toInt()}});
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      nlohmann::json below = path;
      if (entry.key().isInt()) {
        below.push_back(entry.key().toInt());
      } else {
        below.push_back(entry.key().toStringRef());
      }
      describe_into(list, below, entry.value());
    }
  } else {
    throw std::logic_error("cannot describe a " + value.tagKind());
  }
}

}  // namespace

std::string name_of(Shape shape) {
  return shape == Shape::gpt2 ? "gpt2" : shape == Shape::small ? "small" : "large";
}

StateSpec large_as_small(double scale) {
  return {Shape::large, scale * kSmallTensors * static_cast<double>(kSmallElements) /
                            static_cast<double>(kLargeTensors * kLargeElements)};
}

nlohmann::json describe(const ckptring::StateDict& dict) {
  nlohmann::json list = nlohmann::json::array();
  describe_into(list, nlohmann::json::array(), dict);
  return list;
}

const SavedState& CurrentState::get(const StateSpec& spec) {
  if (!held_ || held_->spec != spec) {
    held_.reset();
    held_ = Held{spec, make_state(spec)};
  }
  return held_->state;
}

void CurrentState::release() {
  held_.reset();
  (void)::malloc_trim(0);
}

}  // namespace bench
