#include "inspect.h"

#include "output.h"
#include "plan/key_tree.h"
#include "plan/pt_archive.h"
#include "plan/tensor_bounds.h"
#include "plan/value.h"
#include "store/file_source.h"
#include "words.h"

#include <ckptring/checkpoints.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::command {
namespace {

using Json = nlohmann::ordered_json;

using Node = plan::KeyTree::Node;

/// What lies at a key, in words.
struct Note {
  Node key;
  std::string what;
};
struct FoundTensor {
  Node key;
  plan::Tensor tensor;
};
/// A container that the file has under another key as well.
struct Shared {
  Node key;
  Node first;
};

/// Everything in one file.
struct Contents {
  explicit Contents(plan::Document read) : document(std::move(read)) {}

  std::string path;
  std::uint64_t file_bytes = 0;
  CheckpointInfo info;
  bool has_checksums = true;
  plan::Document document;  ///< what tensors and keys are views of
  plan::KeyTree keys;
  std::vector<FoundTensor> tensors;
  std::vector<Shared> shared;
  std::vector<Note> unsupported;
  std::uint64_t other_values = 0;
  /// By record: shared ones count once.
  struct Storage {
    Node first_user;
    std::uint64_t bytes;
  };
  std::map<std::size_t, Storage> storages;

  [[nodiscard]] std::uint64_t storage_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [record, storage] : storages) sum += storage.bytes;
    return sum;
  }
};

/// Follows each container once, however often a file has it.
class Collect {
 public:
  explicit Collect(Contents& contents) : contents_(contents) {}

  void all() { visit(contents_.document.root(), plan::KeyTree::kRoot); }

  void operator()(const plan::Tensor& tensor) {
    contents_.tensors.push_back({at_, tensor});
    contents_.storages.try_emplace(tensor.record(), Contents::Storage{at_, tensor.storage_bytes()});
  }
  void operator()(const plan::List& list) { items(list); }
  void operator()(const plan::Tuple& tuple) { items(tuple); }
  void operator()(const plan::Dict& dict) {
    if (met_before(dict)) return;
    const Node here = at_;
    for (std::size_t i = 0; i < dict.size(); ++i) {
      const plan::Dict::Key key = dict.key(i);
      if (const auto* const other = std::get_if<plan::OtherKey>(&key)) {
        const Node node = contents_.keys.add(here, plan::KeyStep::of(other->words));
        contents_.unsupported.push_back(
            {node, "under a key that is neither a string of UTF-8 nor an int"});
        continue;
      }
      const auto* const text = std::get_if<plan::String>(&key);
      visit(dict.value(i),
            contents_.keys.add_borrowed(
                here, text != nullptr ? plan::KeyStep::of(text->text)
                                      : plan::KeyStep::of_key(std::get<std::int64_t>(key))));
    }
  }
  void operator()(const plan::Unsupported& what) {
    contents_.unsupported.push_back({at_, what.what});
  }
  template <class Leaf>
  void operator()(const Leaf&) {
    ++contents_.other_values;
  }

 private:
  void visit(const plan::Value& value, Node at) {
    at_ = at;
    std::visit(*this, value.data);
  }
  void items(const plan::Sequence& sequence) {
    if (met_before(sequence)) return;
    const Node here = at_;
    for (std::size_t i = 0; i < sequence.size(); ++i) {
      visit(sequence[i], contents_.keys.add_borrowed(here, plan::KeyStep::at(i)));
    }
  }
  bool met_before(const plan::Container& container) {
    const auto [found, is_new] = first_.try_emplace(container.id(), at_);
    if (!is_new) contents_.shared.push_back({at_, found->second});
    return !is_new;
  }

  Contents& contents_;
  Node at_ = plan::KeyTree::kRoot;
  std::map<std::uint32_t, Node> first_;  ///< of containers
};

Contents read(const std::string& path) {
  const std::unique_ptr<plan::ByteSource> source = store::open_file_source(path);
  const plan::PtArchive archive = plan::PtArchive::open(*source);
  Contents contents(archive.read_value(*source));
  contents.path = path;
  contents.file_bytes = source->size();
  contents.info = archive.info();
  contents.has_checksums = archive.has_checksums();
  Collect(contents).all();
  return contents;
}

Json json_of(const MetadataValue& value) {
  return std::visit(
      [](const auto& plain) -> Json {
        // JSON has no infinity; text says it better than null.
        if constexpr (std::is_same_v<std::decay_t<decltype(plain)>, double>) {
          if (!std::isfinite(plain)) return fmt::format("{}", plain);
        }
        return plain;
      },
      value);
}

/// The standard output, some of it at a time: tables may be longer than memory.
class Output {
 public:
  void add(std::string_view text) {
    held_ += text;
    if (held_.size() >= kEnough) flush();
  }
  void flush() {
    print(held_);
    held_.clear();
  }

 private:
  static constexpr std::size_t kEnough = 1 << 16;
  std::string held_;
};

// JSON, with every key and shape as the file has them.

/// A path need not be UTF-8.
std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// One line for each item.
template <class Items, class JsonOf>
void add_list(Output& out, const char* name, const Items& items, const JsonOf& json_of) {
  const char* before = "\n";
  out.add(fmt::format("      \"{}\": [", name));
  for (const auto& item : items) {
    out.add(std::exchange(before, ",\n"));
    out.add("        " + dumped(json_of(item)));
  }
  out.add(items.empty() ? "],\n" : "\n      ],\n");
}

Json head_of(const Contents& contents) {
  Json file{{"path", contents.path},
            {"file_bytes", contents.file_bytes},
            {"format_version", contents.info.format_version}};
  if (contents.info.format_version > 0) {
    file["rank"] = contents.info.rank;
    file["world_size"] = contents.info.world_size;
    if (contents.info.step) file["step"] = *contents.info.step;
    if (contents.info.save_id) file["save_id"] = to_string(*contents.info.save_id);
    Json metadata = Json::object();
    for (const auto& [key, value] : contents.info.metadata) metadata[key] = json_of(value);
    file["metadata"] = std::move(metadata);
  }
  file["checksums"] = contents.has_checksums;
  return file;
}

void add_json(Output& out, const Contents& contents) {
  const auto path = [&](Node node) { return contents.keys.whole_path(node); };
  out.add("    {\n");
  const Json head = head_of(contents);
  for (const auto& [name, value] : head.items()) {
    out.add(fmt::format("      \"{}\": {},\n", name, dumped(value)));
  }
  std::uint64_t tensor_bytes = 0;
  add_list(out, "tensors", contents.tensors, [&](const FoundTensor& found) {
    const plan::Tensor& tensor = found.tensor;
    const std::vector<std::int64_t> sizes = tensor.sizes();
    const std::uint64_t bytes = plan::tensor_bytes(tensor.dtype(), sizes);
    tensor_bytes += bytes;
    return Json{{"key", path(found.key)},
                {"dtype", plan::name(tensor.dtype())},
                {"shape", sizes},
                {"strides", tensor.strides()},
                {"offset", tensor.offset()},
                {"bytes", bytes},
                {"storage", tensor.storage_key()},
                {"storage_bytes", tensor.storage_bytes()},
                {"location", tensor.location()},
                {"requires_grad", tensor.requires_grad()}};
  });
  add_list(out, "shared", contents.shared, [&](const Shared& found) {
    return Json{{"key", path(found.key)}, {"same_as", path(found.first)}};
  });
  add_list(out, "unsupported", contents.unsupported, [&](const Note& found) {
    return Json{{"key", path(found.key)}, {"what", found.what}};
  });
  out.add(fmt::format("      \"totals\": {}\n    }}",
                      dumped({{"tensors", contents.tensors.size()},
                              {"tensor_bytes", tensor_bytes},
                              {"storages", contents.storages.size()},
                              {"storage_bytes", contents.storage_bytes()},
                              {"other_values", contents.other_values}})));
}

// A table, with what somebody may read of each key and shape.

std::string words_of_key(const Contents& contents, Node key) {
  return printable(shortened(contents.keys.path(key)));
}

class Table {
 public:
  explicit Table(const Contents& contents) : contents_(contents) {
    for (const FoundTensor& found : contents.tensors) {
      const Row row = row_of(found);
      for (std::size_t i = 0; i < widths_.size(); ++i) {
        widths_[i] = std::max(widths_[i], std::min(row[i].size(), kWidest));
      }
    }
  }

  void add_to(Output& out) {
    if (contents_.tensors.empty()) return;
    out.add(line_of(kHead));
    for (const FoundTensor& found : contents_.tensors) out.add(line_of(row_of(found)));
  }

 private:
  using Row = std::array<std::string, 5>;
  inline static const Row kHead{"KEY", "DTYPE", "SHAPE", "BYTES", ""};
  static constexpr std::size_t kWidest = 60;  ///< column; what is longer moves the rest of its line
  struct Size {
    std::string shape;
    std::string bytes;
  };

  Row row_of(const FoundTensor& found) {
    const plan::Tensor& tensor = found.tensor;
    const Node first = contents_.storages.at(tensor.record()).first_user;
    const Size& size = size_of(tensor);
    return {words_of_key(contents_, found.key), std::string(plan::name(tensor.dtype())), size.shape,
            size.bytes,
            first == found.key ? "" : "shares the storage of " + words_of_key(contents_, first)};
  }

  /// A file may have one tensor, of a long shape, at many places.
  const Size& size_of(const plan::Tensor& tensor) {
    const auto [found, is_new] = sizes_.try_emplace(tensor.id());
    if (is_new) {
      const std::vector<std::int64_t> sizes = tensor.sizes();
      found->second = {plan::shape_words(sizes),
                       human_bytes(plan::tensor_bytes(tensor.dtype(), sizes))};
    }
    return found->second;
  }

  [[nodiscard]] std::string line_of(const Row& row) const {
    std::string line =
        fmt::format("  {:<{}}  {:<{}}  {:<{}}  {:>{}}  {}", row[0], widths_[0], row[1], widths_[1],
                    row[2], widths_[2], row[3], widths_[3], row[4]);
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
  }

  const Contents& contents_;
  std::array<std::size_t, 4> widths_{kHead[0].size(), kHead[1].size(), kHead[2].size(),
                                     kHead[3].size()};
  std::unordered_map<std::uint32_t, Size> sizes_;
};

void add_text(Output& out, const Contents& contents) {
  out.add(printable(contents.path) + "\n");
  if (contents.info.format_version > 0) {
    out.add(fmt::format("  ckptring format {}, rank {} of {}", contents.info.format_version,
                        contents.info.rank, contents.info.world_size));
    if (contents.info.step) out.add(fmt::format(", step {}", *contents.info.step));
    if (contents.info.save_id) out.add(", save id " + to_string(*contents.info.save_id));
    out.add("\n");
    for (const auto& [key, value] : contents.info.metadata) {
      out.add(fmt::format("  {} = {}\n", printable(key), printable(json_of(value).dump())));
    }
  } else {
    out.add("  not written by ckptring\n");
  }
  if (!contents.has_checksums) {
    out.add("  checksums were not computed: damage cannot be noticed\n");
  }
  Table(contents).add_to(out);
  for (const auto& [key, first] : contents.shared) {
    out.add(fmt::format("  {}: the same object as {}\n", words_of_key(contents, key),
                        words_of_key(contents, first)));
  }
  for (const auto& [key, what] : contents.unsupported) {
    out.add(fmt::format("  {}: cannot be loaded here, it is {}\n", words_of_key(contents, key),
                        printable(shortened(what))));
  }
  out.add(fmt::format(
      "  {} in {} of {}, {}; the file has {}\n", count(contents.tensors.size(), "tensor"),
      count(contents.storages.size(), "storage"), human_bytes(contents.storage_bytes()),
      count(contents.other_values, "other value"), human_bytes(contents.file_bytes)));
}

}  // namespace

void inspect(const std::vector<std::string>& files, bool json) {
  // All of them first: where one cannot be read, nothing is printed.
  std::vector<Contents> all;
  all.reserve(files.size());
  for (const std::string& file : files) all.push_back(read(file));
  Output out;
  if (json) out.add("{\n  \"files\": [\n");
  const char* before = "";
  for (const Contents& contents : all) {
    out.add(std::exchange(before, json ? ",\n" : "\n"));
    json ? add_json(out, contents) : add_text(out, contents);
  }
  if (json) out.add("\n  ]\n}\n");
  out.flush();
}

}  // namespace ckptring::command
