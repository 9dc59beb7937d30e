#include "support/gpt2_state.h"

#include "support/stopwatch.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace bench {
namespace {

using ckptring::StateDict;

constexpr int kLayers = 12;

/// The parameters of GPT-2 small, by their usual names.
class Parameters {
 public:
  explicit Parameters(double scale) : shrink_(std::sqrt(scale)) {
    const std::int64_t width = side(768);
    const std::int64_t inner = 4 * width;
    add("wte.weight", {side(50257), width});
    add("wpe.weight", {side(1024), width});
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string prefix = "h." + std::to_string(layer) + ".";
      add_pair(prefix + "ln_1", {width}, width);
      add_pair(prefix + "attn.c_attn", {width, 3 * width}, 3 * width);
      add_pair(prefix + "attn.c_proj", {width, width}, width);
      add_pair(prefix + "ln_2", {width}, width);
      add_pair(prefix + "mlp.c_fc", {width, inner}, inner);
      add_pair(prefix + "mlp.c_proj", {inner, width}, width);
    }
    add_pair("ln_f", {width}, width);
  }

  struct Parameter {
    std::string name;
    std::vector<std::int64_t> sizes;
  };
  [[nodiscard]] const std::vector<Parameter>& all() const noexcept { return all_; }

 private:
  [[nodiscard]] std::int64_t side(double full) const {
    return std::max<std::int64_t>(1, std::llround(full * shrink_));
  }
  void add(std::string name, std::vector<std::int64_t> sizes) {
    all_.push_back({std::move(name), std::move(sizes)});
  }
  void add_pair(const std::string& name, std::vector<std::int64_t> weight, std::int64_t bias) {
    add(name + ".weight", std::move(weight));
    add(name + ".bias", {bias});
  }

  double shrink_;
  std::vector<Parameter> all_;
};

void walk(const c10::IValue& value, std::uint64_t& sum) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    sum += reinterpret_cast<std::uintptr_t>(tensor.storage().unsafeGetStorageImpl());
    sum += tensor.storage().nbytes() + static_cast<std::uint64_t>(tensor.storage_offset());
    sum += static_cast<std::uint64_t>(tensor.scalar_type()) + (tensor.is_conj() ? 1 : 0) +
           (tensor.is_neg() ? 1 : 0) + (tensor.layout() == c10::kStrided ? 1 : 0);
    for (const std::int64_t size : tensor.sizes()) sum += static_cast<std::uint64_t>(size);
    for (const std::int64_t stride : tensor.strides()) sum += static_cast<std::uint64_t>(stride);
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) walk(entry.value(), sum);
  }
}

}  // namespace

Gpt2State make_gpt2_state(double scale) {
  Gpt2State made{ckptring::make_state_dict(), 0, {}};
  const auto take = [&made](StateDict& dict, const std::string& key, const at::Tensor& tensor) {
    dict.insert_or_assign(key, tensor);
    ++made.tensors;
    made.payloads.emplace_back(static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes());
  };
  StateDict model = ckptring::make_state_dict();
  StateDict moments = ckptring::make_state_dict();
  const std::vector<Parameters::Parameter> parameters = Parameters(scale).all();
  const auto random = [](const std::vector<std::int64_t>& sizes) {
    return at::empty(sizes, at::kFloat).uniform_(-1, 1);
  };
  for (const auto& parameter : parameters) take(model, parameter.name, random(parameter.sizes));
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    StateDict of_one = ckptring::make_state_dict();
    of_one.insert_or_assign("step", std::int64_t{1000});
    take(of_one, "exp_avg", random(parameters[i].sizes));
    take(of_one, "exp_avg_sq", random(parameters[i].sizes));
    moments.insert_or_assign(static_cast<std::int64_t>(i), of_one);
  }
  StateDict optimizer = ckptring::make_state_dict();
  optimizer.insert_or_assign("state", moments);
  made.state.insert_or_assign("model", model);
  made.state.insert_or_assign("optimizer", optimizer);
  return made;
}

double walk_state(const ckptring::StateDict& state) {
  const Stopwatch watch;
  std::uint64_t sum = 0;
  walk(state, sum);
  const double seconds = watch.seconds();
  // Makes the compiler believe that somebody wants the sum, or it leaves out the walk.
  asm volatile("" : : "r"(sum));
  return seconds;
}

}  // namespace bench
