#include "plan/key_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace ckptring::plan {
namespace {

constexpr std::size_t kLongestText = 1000;  // of one step in a message
/// Of the beginning of a path, and of its end.
constexpr std::size_t kLongestPart = 2000;

void append(std::string& path, const KeyStep& step, std::size_t longest = kLongestText) {
  if (step.kind == KeyStep::Kind::index) {
    fmt::format_to(std::back_inserter(path), "[{}]", step.number);
    return;
  }
  if (!path.empty()) path += '.';
  if (step.kind == KeyStep::Kind::number) {
    fmt::format_to(std::back_inserter(path), "{}", step.number);
    return;
  }
  std::size_t length = std::min(step.text.size(), longest);
  if (length < step.text.size()) {
    // Not within a character.
    while (length > 0 && (static_cast<unsigned char>(step.text[length]) & 0xC0) == 0x80) --length;
  }
  path += step.text.substr(0, length);
  if (length < step.text.size()) path += "...";
}

}  // namespace

std::string key_path(std::span<const KeyStep> steps) {
  std::string path;
  std::size_t i = 0;
  for (; i < steps.size() && path.size() <= kLongestPart; ++i) append(path, steps[i]);
  std::size_t end = steps.size();
  for (std::size_t length = 0; end > i && length <= kLongestPart; --end) {
    length += std::min(steps[end - 1].text.size(), kLongestText) + 1;
  }
  if (end > i) path += "...";
  for (; end < steps.size(); ++end) append(path, steps[end]);
  return path;
}

KeyTree::Node KeyTree::add(Node parent, const KeyStep& step) {
  if (step.kind != KeyStep::Kind::text) return add_borrowed(parent, step);
  return add_kept(parent, keep(step.text), static_cast<std::uint32_t>(step.text.size()));
}

KeyTree::Node KeyTree::add_kept(Node parent, std::size_t begin, std::uint32_t length) {
  Entry entry;
  entry.parent = parent;
  entry.kind = KeyStep::Kind::text;
  entry.is_kept = true;
  entry.length = length;
  entry.begin = begin;
  entries_.push_back(entry);
  return static_cast<Node>(entries_.size() - 1);
}

KeyTree::Node KeyTree::add_borrowed(Node parent, const KeyStep& step) {
  Entry entry;
  entry.parent = parent;
  entry.kind = step.kind;
  if (step.kind == KeyStep::Kind::text) {
    entry.length = static_cast<std::uint32_t>(step.text.size());
    entry.borrowed = step.text.data();
  } else {
    entry.number = step.number;
  }
  entries_.push_back(entry);
  return static_cast<Node>(entries_.size() - 1);
}

KeyStep KeyTree::step_of(const Entry& entry) const {
  if (entry.kind != KeyStep::Kind::text) return {entry.kind, {}, entry.number};
  if (!entry.is_kept) return KeyStep::of({entry.borrowed, entry.length});
  return KeyStep::of(kept(entry.begin, entry.length));
}

std::vector<KeyStep> KeyTree::steps_to(Node node) const {
  std::vector<KeyStep> steps;
  for (; node != kRoot; node = entries_[node].parent) steps.push_back(step_of(entries_[node]));
  std::ranges::reverse(steps);
  return steps;
}

std::string KeyTree::path(Node node) const {
  return node == kRoot ? "(the whole state)" : key_path(steps_to(node));
}

std::string KeyTree::whole_path(Node node) const {
  if (node == kRoot) return path(node);
  std::string whole;
  for (const KeyStep& step : steps_to(node)) append(whole, step, step.text.size());
  return whole;
}

std::uint64_t KeyTree::whole_length(Node node) const {
  constexpr std::uint64_t kLongestNumber = 24;  // with its brackets, or a text's dot
  std::uint64_t length = kLongestNumber;
  for (; node != kRoot; node = entries_[node].parent) {
    length += kLongestNumber + step_of(entries_[node]).text.size();
  }
  return length;
}

std::string KeyTree::path(Node parent, const KeyStep& step) const {
  std::vector<KeyStep> steps = steps_to(parent);
  steps.push_back(step);
  return key_path(steps);
}

}  // namespace ckptring::plan
