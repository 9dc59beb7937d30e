// Where in a state something lies. Kept as small numbers; words are made only for an error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::torch_state {

/// One step from a container to what it holds. The text is borrowed.
struct KeyStep {
  enum class Kind : std::uint8_t { text, number, index };
  Kind kind;
  std::string_view text;    ///< a dict's string key
  std::int64_t number = 0;  ///< a dict's int key, or the position in a list or tuple

  static KeyStep of(std::string_view text) { return {Kind::text, text, 0}; }
  static KeyStep of_key(std::int64_t number) { return {Kind::number, {}, number}; }
  static KeyStep at(std::size_t index) {
    return {Kind::index, {}, static_cast<std::int64_t>(index)};
  }
};

/// Remembers places in a nested state as a tree that grows only.
class KeyTree {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;

  KeyTree() : entries_(1) {}

  /// The place one step below `parent`. Copies the text.
  Node add(Node parent, const KeyStep& step);

  /// As "a.b[0].c"; int keys of dicts as "state.0.exp_avg". The root is "(the whole state)".
  [[nodiscard]] std::string path(Node node) const;
  [[nodiscard]] std::string path(Node parent, const KeyStep& step) const;

 private:
  struct Entry {
    Node parent = kRoot;
    KeyStep::Kind kind = KeyStep::Kind::index;
    std::uint32_t length = 0;  ///< of the text
    std::int64_t number = 0;   ///< where the text begins in `texts_`, else the number itself
  };
  [[nodiscard]] KeyStep step_of(const Entry& entry) const;

  std::vector<Entry> entries_;
  std::string texts_;
};

}  // namespace ckptring::torch_state
