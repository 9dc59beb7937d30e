// Values of a file that have no place in the state yet, as new IValues.
#pragma once

#include "plan/value.h"
#include "torch/fill_plan.h"

#include <ckptring/state_dict.h>

#include <unordered_map>

namespace ckptring::torch_state {

/// Makes values from a file's; containers that are shared in the file are shared here.
class ValueBuilder {
 public:
  /// `plan` collects the tensors' fills.
  explicit ValueBuilder(FillPlan& plan) : plan_(plan) {}

  /// @throws Error unsupported_value, naming the key, if the file's value has no counterpart
  c10::IValue build(const plan::Value& value, KeyTree::Node parent, const KeyStep& step);

  /// Adds all items of the file's dict to `dict`.
  void fill(const StateDict& dict, const plan::Dict& source, KeyTree::Node node);

 private:
  FillPlan& plan_;
  std::unordered_map<const void*, c10::IValue> built_;
};

}  // namespace ckptring::torch_state
