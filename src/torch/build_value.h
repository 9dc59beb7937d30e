// Values of a file that have no place in the state yet, as new IValues. Before they take much
// memory it is asked how much is left: no one file is to take it from all others.
#pragma once

#include "plan/value.h"
#include "torch/fill_plan.h"

#include <ckptring/torch/state_dict.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

namespace ckptring::torch_state {

/// Makes values from a file's; what is shared in the file is shared here. Keeps what it is about to
/// do on the heap, and takes little of the stack.
class ValueBuilder {
 public:
  /// `plan` collects the tensors' fills, and keeps what is made. Both outlive this.
  ValueBuilder(const plan::Document& document, FillPlan& plan);

  /// @throws Error unsupported_value, naming the key, if the file's value has no counterpart;
  ///         out_of_memory, naming it as well
  c10::IValue build(const plan::Value& value, KeyTree::Node parent, const KeyStep& step);

  /// Adds all items of the file's dict, which is all that it holds, to `dict`.
  void fill(const StateDict& dict, const plan::Dict& source, KeyTree::Node node);

 private:
  /// A container that is being made.
  struct Open {
    plan::Value source;
    std::size_t size;
    KeyTree::Node node;
    c10::IValue made;                ///< a list or a dict
    std::vector<c10::IValue> items;  ///< a tuple's, which is made last
    std::size_t next = 0;
  };

  c10::IValue finish(std::size_t height, std::optional<c10::IValue> ready);
  std::optional<c10::IValue> meet(const plan::Value& value, KeyTree::Node parent,
                                  const KeyStep& step);
  std::optional<c10::IValue> meet_next();
  void open(const plan::Value& value, std::size_t size, KeyTree::Node parent, const KeyStep& step);
  void put(c10::IValue item);
  c10::IValue close();

  c10::IValue string(const plan::String& text);
  c10::IValue tensor(const plan::Tensor& tensor, KeyTree::Node parent, const KeyStep& step);
  [[noreturn]] void refuse(const std::string& key, const std::string& cause) const;
  void count(std::uint64_t bytes, KeyTree::Node parent, const KeyStep& step);
  void require_memory(std::uint64_t bytes, const std::string& key) const;

  FillPlan& plan_;
  std::uint64_t all_bytes_;       ///< that all values of the file take
  std::uint64_t made_bytes_ = 0;  ///< that those take which were made
  std::uint64_t next_check_;      ///< so many may be made before it is asked what is left
  std::vector<Open> open_;
  std::unordered_map<std::uint32_t, c10::IValue> containers_;
  std::unordered_map<std::uint32_t, c10::IValue> tensors_;
  std::vector<c10::IValue> strings_;
};

}  // namespace ckptring::torch_state
