#include "torch/key_tree.h"

#include <fmt/format.h>

namespace ckptring::torch_state {
namespace {

void append(std::string& path, const KeyStep& step) {
  if (step.kind == KeyStep::Kind::index) {
    fmt::format_to(std::back_inserter(path), "[{}]", step.number);
    return;
  }
  if (!path.empty()) path += '.';
  if (step.kind == KeyStep::Kind::number) {
    fmt::format_to(std::back_inserter(path), "{}", step.number);
  } else {
    path += step.text;
  }
}

}  // namespace

KeyTree::Node KeyTree::add(Node parent, const KeyStep& step) {
  Entry entry{parent, step.kind, 0, step.number};
  if (step.kind == KeyStep::Kind::text) {
    entry.length = static_cast<std::uint32_t>(step.text.size());
    entry.number = static_cast<std::int64_t>(texts_.size());
    texts_ += step.text;
  }
  entries_.push_back(entry);
  return static_cast<Node>(entries_.size() - 1);
}

KeyStep KeyTree::step_of(const Entry& entry) const {
  if (entry.kind != KeyStep::Kind::text) return {entry.kind, {}, entry.number};
  const auto begin = static_cast<std::size_t>(entry.number);
  return KeyStep::of(std::string_view(texts_).substr(begin, entry.length));
}

std::string KeyTree::path(Node node) const {
  if (node == kRoot) return "(the whole state)";
  std::vector<Node> nodes;
  for (; node != kRoot; node = entries_[node].parent) nodes.push_back(node);
  std::string path;
  for (std::size_t i = nodes.size(); i-- > 0;) append(path, step_of(entries_[nodes[i]]));
  return path;
}

std::string KeyTree::path(Node parent, const KeyStep& step) const {
  std::string path = parent == kRoot ? std::string() : this->path(parent);
  append(path, step);
  return path;
}

}  // namespace ckptring::torch_state
