#include "torch/build_value.h"

#include <ckptring/error.h>

#include <ATen/core/jit_type.h>

#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::torch_state {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

}  // namespace

c10::IValue ValueBuilder::build(const plan::Value& value, KeyTree::Node parent,
                                const KeyStep& step) {
  // A small file can name one container very often; each is built once.
  const auto once = [&](const void* identity, auto make) {
    if (const auto found = built_.find(identity); found != built_.end()) return found->second;
    c10::IValue made = make(plan_.keys.add(parent, step));
    built_.emplace(identity, made);
    return made;
  };
  return std::visit(
      Overloaded{
          [](plan::None) { return c10::IValue(); },
          [](bool flag) { return c10::IValue(flag); },
          [](std::int64_t number) { return c10::IValue(number); },
          [](double number) { return c10::IValue(number); },
          [](const std::string& text) { return c10::IValue(text); },
          [&](const plan::Tensor& tensor) {
            return c10::IValue(plan_.make_tensor(tensor, plan_.keys.add(parent, step)));
          },
          [&](const std::shared_ptr<plan::List>& list) {
            return once(list.get(), [&](KeyTree::Node node) {
              auto made = make_state_list();
              made.reserve(list->items.size());
              for (std::size_t i = 0; i < list->items.size(); ++i) {
                made.push_back(build(list->items[i], node, KeyStep::at(i)));
              }
              return c10::IValue(made);
            });
          },
          [&](const std::shared_ptr<plan::Tuple>& tuple) {
            return once(tuple.get(), [&](KeyTree::Node node) {
              std::vector<c10::IValue> items;
              items.reserve(tuple->items.size());
              for (std::size_t i = 0; i < tuple->items.size(); ++i) {
                items.push_back(build(tuple->items[i], node, KeyStep::at(i)));
              }
              return c10::IValue(c10::ivalue::Tuple::create(std::move(items)));
            });
          },
          [&](const std::shared_ptr<plan::Dict>& dict) {
            return once(dict.get(), [&](KeyTree::Node node) {
              StateDict made = make_state_dict();
              fill(made, *dict, node);
              return c10::IValue(made);
            });
          },
          [&](const plan::Unsupported& unsupported) -> c10::IValue {
            throw plan_.error(ErrorCode::unsupported_value, plan_.keys.path(parent, step),
                              "the file holds " + unsupported.what + " there");
          },
      },
      value.data);
}

void ValueBuilder::fill(const StateDict& dict, const plan::Dict& source, KeyTree::Node node) {
  dict.reserve(source.items.size());
  for (const auto& [key, value] : source.items) {
    if (const auto* text = std::get_if<std::string>(&key)) {
      dict.insert_or_assign(*text, build(value, node, KeyStep::of(*text)));
    } else {
      const std::int64_t number = std::get<std::int64_t>(key);
      dict.insert_or_assign(number, build(value, node, KeyStep::of_key(number)));
    }
  }
}

}  // namespace ckptring::torch_state
