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
    std::string operator()(const String& s) const { return fmt::format("'{}'", s.text); }
    std::string operator()(const OtherKey& key) const { return "<" + key.words + ">"; }
    std::string operator()(const Tensor& t) const {
      return fmt::format("{}@{}+{}({}|{}){}{}{}", name(t.dtype()), t.storage_key(), t.offset(),
                         fmt::join(t.sizes(), ","), fmt::join(t.strides(), ","),
                         t.requires_grad() ? "g" : "", t.conj() ? "c" : "", t.neg() ? "n" : "");
    }
    std::string operator()(const List& list) const { return "[" + items(list) + "]"; }
    std::string operator()(const Tuple& tuple) const { return "(" + items(tuple) + ")"; }
    std::string operator()(const Dict& dict) const {
      std::string out;
      for (std::size_t i = 0; i < dict.size(); ++i) {
        out +=
            (out.empty() ? "" : ", ") + std::visit(*this, dict.key(i)) + ": " + show(dict.value(i));
      }
      return "{" + out + "}";
    }
    std::string operator()(const Unsupported& u) const { return "<" + u.what + ">"; }

    static std::string items(const Sequence& values) {
      std::string out;
      for (std::size_t i = 0; i < values.size(); ++i) {
        out += (out.empty() ? "" : ", ") + show(values[i]);
      }
      return out;
    }
  };
  return std::visit(Show{}, value.data);
}

inline std::string show(const Document& document) { return show(document.root()); }

}  // namespace ckptring::plan
