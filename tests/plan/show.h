// A Value as one line of text, so that a test can say what it expects.
#pragma once

#include "plan/value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>

namespace ckptring::plan {

inline std::string show(const Value& value) {
  struct Show {
    std::string operator()(None) const { return "None"; }
    std::string operator()(bool b) const { return b ? "True" : "False"; }
    std::string operator()(std::int64_t i) const { return std::to_string(i); }
    std::string operator()(double d) const { return fmt::format("{}", d); }
    std::string operator()(const std::string& s) const { return "'" + s + "'"; }
    std::string operator()(const Tensor& t) const {
      return fmt::format("{}@{}+{}({}|{}){}{}{}", name(t.dtype), t.storage_key, t.offset,
                         fmt::join(t.sizes, ","), fmt::join(t.strides, ","),
                         t.requires_grad ? "g" : "", t.conj ? "c" : "", t.neg ? "n" : "");
    }
    std::string operator()(const std::shared_ptr<List>& list) const {
      return "[" + items(list->items) + "]";
    }
    std::string operator()(const std::shared_ptr<Tuple>& tuple) const {
      return "(" + items(tuple->items) + ")";
    }
    std::string operator()(const std::shared_ptr<Dict>& dict) const {
      std::string out;
      for (const auto& [key, value] : dict->items) {
        const auto* text = std::get_if<std::string>(&key);
        out += (out.empty() ? "" : ", ") +
               (text != nullptr ? "'" + *text + "'" : std::to_string(std::get<1>(key))) + ": " +
               show(value);
      }
      return "{" + out + "}";
    }
    std::string operator()(const Unsupported& u) const { return "<" + u.what + ">"; }

    static std::string items(const std::vector<Value>& values) {
      std::string out;
      for (const Value& value : values) out += (out.empty() ? "" : ", ") + show(value);
      return out;
    }
  };
  return std::visit(Show{}, value.data);
}

}  // namespace ckptring::plan
