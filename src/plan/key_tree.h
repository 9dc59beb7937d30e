// Where in a state something lies. Kept as small numbers; words are made only for an error.
#pragma once

#include "base/make_room.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

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

/// As "a.b[0].c"; int keys of dicts as "state.0.exp_avg". Where it gets longer than anybody reads,
/// the middle is left out: files may have keys of any length.
std::string key_path(std::span<const KeyStep> steps);

/// Remembers places in a nested state as a tree that grows only.
class KeyTree {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;

  KeyTree() : entries_(1) {}

  /// The place one step below `parent`. Copies the text.
  Node add(Node parent, const KeyStep& step);
  /// The same. The text stays where it is, and has to.
  Node add_borrowed(Node parent, const KeyStep& step);

  /// Copies a text that may become a step's. @return where it begins, for the two below
  std::size_t keep(std::string_view text) {
    texts_ += text;
    return texts_.size() - text.size();
  }
  Node add_kept(Node parent, std::size_t begin, std::uint32_t length);
  [[nodiscard]] std::string_view kept(std::size_t begin, std::uint32_t length) const {
    return std::string_view(texts_).substr(begin, length);
  }

  /// Makes room for so many more.
  void expect(std::size_t more) { base::make_room(entries_, more); }

  /// See key_path. The root is "(the whole state)".
  [[nodiscard]] std::string path(Node node) const;
  [[nodiscard]] std::string path(Node parent, const KeyStep& step) const;
  /// The same with nothing left out, however long it is: for programs, not for messages.
  [[nodiscard]] std::string whole_path(Node node) const;
  /// At least its bytes.
  [[nodiscard]] std::uint64_t whole_length(Node node) const;

 private:
  struct Entry {
    Node parent = kRoot;
    KeyStep::Kind kind = KeyStep::Kind::index;
    bool is_kept = false;
    std::uint32_t length = 0;  ///< of the text
    union {
      std::int64_t number = 0;
      const char* borrowed;
      std::size_t begin;  ///< in `texts_`
    };
  };
  [[nodiscard]] KeyStep step_of(const Entry& entry) const;
  [[nodiscard]] std::vector<KeyStep> steps_to(Node node) const;

  std::vector<Entry> entries_;
  std::string texts_;
};

}  // namespace ckptring::plan
