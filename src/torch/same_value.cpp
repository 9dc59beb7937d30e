#include "torch/same_value.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>
#include <variant>

namespace ckptring::torch_state {
namespace {

bool same_place(const plan::Tensor& a, const plan::Tensor& b) {
  return a.id() == b.id() ||
         (a.record() == b.record() && a.offset() == b.offset() && a.strides() == b.strides() &&
          a.conj() == b.conj() && a.neg() == b.neg());
}

/// Follows both at once. What is still to be compared is on the heap, not on the stack.
class Comparison {
 public:
  explicit Comparison(std::vector<TensorPair>& tensors) : tensors_(tensors) {}

  bool run(const plan::Value& first, const plan::Value& second) {
    pending_.emplace_back(first, second);
    while (!pending_.empty()) {
      const auto [a, b] = pending_.back();
      pending_.pop_back();
      if (!same(a, b)) return false;
    }
    return true;
  }

 private:
  bool same(const plan::Value& a, const plan::Value& b) {
    if (a.data.index() != b.data.index()) return false;
    return std::visit(
        [&](const auto& left) {
          return same_kind(left, std::get<std::remove_cvref_t<decltype(left)>>(b.data));
        },
        a.data);
  }

  bool same_kind(plan::None /*a*/, plan::None /*b*/) { return true; }
  bool same_kind(bool a, bool b) { return a == b; }
  bool same_kind(std::int64_t a, std::int64_t b) { return a == b; }
  bool same_kind(double a, double b) {
    // As bits: -0.0 is not 0.0, and a NaN is itself.
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
  }
  bool same_kind(const plan::String& a, const plan::String& b) {
    return a.id == b.id || a.text == b.text;
  }
  bool same_kind(const plan::Unsupported& a, const plan::Unsupported& b) {
    return a.what == b.what;
  }
  bool same_kind(const plan::Tensor& a, const plan::Tensor& b) {
    if (a.dtype() != b.dtype() || a.sizes() != b.sizes()) return false;
    if (!same_place(a, b)) tensors_.push_back({a, b});
    return true;
  }
  bool same_kind(const plan::Sequence& a, const plan::Sequence& b) {
    if (a.size() != b.size()) return false;
    if (met_before(a, b)) return true;
    for (std::size_t i = 0; i < a.size(); ++i) pending_.emplace_back(a[i], b[i]);
    return true;
  }
  bool same_kind(const plan::Dict& a, const plan::Dict& b) {
    if (a.size() != b.size()) return false;
    if (met_before(a, b)) return true;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const plan::Dict::Key key = a.key(i);
      std::optional<plan::Value> value;
      if (const auto* text = std::get_if<plan::String>(&key)) {
        value = b.find(text->text);
      } else if (const auto* number = std::get_if<std::int64_t>(&key)) {
        value = b.find(*number);
      }
      if (!value) return false;
      pending_.emplace_back(a.value(i), *value);
    }
    return true;
  }

  /// Shared containers could be met again and again.
  bool met_before(const plan::Container& a, const plan::Container& b) {
    return a.id() == b.id() || !met_.emplace(a.id(), b.id()).second;
  }

  std::vector<TensorPair>& tensors_;
  std::vector<std::pair<plan::Value, plan::Value>> pending_;
  std::set<std::pair<std::uint32_t, std::uint32_t>> met_;
};

}  // namespace

bool same_value(const plan::Value& first, const plan::Value& second,
                std::vector<TensorPair>& tensors) {
  return Comparison(tensors).run(first, second);
}

}  // namespace ckptring::torch_state
