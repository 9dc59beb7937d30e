// Where in a nested state something is, in words: a.b[0].c
#pragma once

#include "plan/value.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// Follows a recursive walk, step by step.
class KeyPath {
 public:
  void push_key(const Dict::Key& key) {
    begin();
    if (const auto* text = std::get_if<std::string>(&key)) {
      append_key(*text);
    } else {
      append_key(std::to_string(std::get<std::int64_t>(key)));
    }
  }
  void push_index(std::size_t index) {
    begin();
    text_ += '[';
    text_ += std::to_string(index);
    text_ += ']';
  }
  void pop() {
    text_.resize(lengths_.back());
    lengths_.pop_back();
  }
  /// Empty at the root.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  void begin() { lengths_.push_back(text_.size()); }
  void append_key(std::string_view key) {
    if (!text_.empty()) text_ += '.';
    text_ += key;
  }

  std::string text_;
  std::vector<std::size_t> lengths_;  ///< of the text before each step
};

}  // namespace ckptring::plan
