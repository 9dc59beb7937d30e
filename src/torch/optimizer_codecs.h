// What each optimizer's typed options and state hold, under the names that Python gives them.
//
// A new optimizer type needs one pair of functions, which names its fields once for both
// directions, and one row in the table of optimizer_codecs.cpp.
#pragma once

#include <torch/optim/optimizer.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <tuple>
#include <typeinfo>

namespace ckptring::torch_state {

/// Visits the fields of one param group's options, to read or to replace them.
class OptionFields {
 public:
  virtual ~OptionFields() = default;
  virtual void real(std::string_view name, double& value) = 0;
  virtual void reals(std::string_view name, std::tuple<double, double>& value) = 0;
  virtual void flag(std::string_view name, bool& value) = 0;
  /// An option of Python's that has no counterpart here. Written as Python's default; a file
  /// where it is otherwise cannot be continued here.
  virtual void only(std::string_view name, bool value) = 0;
  /// An option of Python's that changes how it computes, not what. Written as Python's default.
  virtual void any_flag(std::string_view name) = 0;  ///< default False
  virtual void any(std::string_view name) = 0;       ///< default None
};

/// Visits the fields of one parameter's state, to read or to replace them.
class StateFields {
 public:
  virtual ~StateFields() = default;
  /// A count that Python keeps in a 0-d tensor of floats.
  virtual void step(std::string_view name, std::int64_t& value) = 0;
  /// A tensor shaped like the parameter. If undefined, it is left out.
  virtual void tensor(std::string_view name, at::Tensor& value, bool required) = 0;
};

struct OptimizerCodec {
  const std::type_info* optimizer;
  void (*options)(OptionFields& fields, torch::optim::OptimizerOptions& options);
  void (*state)(StateFields& fields, torch::optim::OptimizerParamState& state);
  std::unique_ptr<torch::optim::OptimizerParamState> (*make_state)();
};

/// @throws Error unsupported_value with the type's name
const OptimizerCodec& codec_of(const torch::optim::Optimizer& optimizer);

}  // namespace ckptring::torch_state
