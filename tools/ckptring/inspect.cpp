#include "inspect.h"

#include "plan/key_tree.h"
#include "plan/pt_archive.h"
#include "plan/tensor_bounds.h"
#include "plan/value.h"
#include "store/file_source.h"
#include "words.h"

#include <ckptring/checkpoints.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
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

Json json_of(const Contents& contents) {
  Json file{{"path", contents.path},
            {"file_bytes", contents.file_bytes},
            {"format_version", contents.info.format_version}};
  if (contents.info.format_version > 0) {
    file["rank"] = contents.info.rank;
    file["world_size"] = contents.info.world_size;
    if (contents.info.step) file["step"] = *contents.info.step;
    Json metadata = Json::object();
    for (const auto& [key, value] : contents.info.metadata) metadata[key] = json_of(value);
    file["metadata"] = std::move(metadata);
  }
  Json tensors = Json::array();
  std::uint64_t tensor_bytes = 0;
  for (const auto& [key, tensor] : contents.tensors) {
    const std::vector<std::int64_t> sizes = tensor.sizes();
    const std::uint64_t bytes = plan::tensor_bytes(tensor.dtype(), sizes);
    tensor_bytes += bytes;
    tensors.push_back({{"key", contents.keys.path(key)},
                       {"dtype", plan::name(tensor.dtype())},
                       {"shape", sizes},
                       {"strides", tensor.strides()},
                       {"offset", tensor.offset()},
                       {"bytes", bytes},
                       {"storage", tensor.storage_key()},
                       {"storage_bytes", tensor.storage_bytes()},
                       {"location", tensor.location()},
                       {"requires_grad", tensor.requires_grad()}});
  }
  Json shared = Json::array();
  for (const auto& [key, first] : contents.shared) {
    shared.push_back({{"key", contents.keys.path(key)}, {"same_as", contents.keys.path(first)}});
  }
  Json unsupported = Json::array();
  for (const auto& [key, what] : contents.unsupported) {
    unsupported.push_back({{"key", contents.keys.path(key)}, {"what", what}});
  }
  file["checksums"] = contents.has_checksums;
  file["tensors"] = std::move(tensors);
  file["shared"] = std::move(shared);
  file["unsupported"] = std::move(unsupported);
  file["totals"] = {{"tensors", contents.tensors.size()},
                    {"tensor_bytes", tensor_bytes},
                    {"storages", contents.storages.size()},
                    {"storage_bytes", contents.storage_bytes()},
                    {"other_values", contents.other_values}};
  return file;
}

std::string text_of(const Contents& contents) {
  std::string out = printable(contents.path) + "\n";
  if (contents.info.format_version > 0) {
    out += fmt::format("  ckptring format {}, rank {} of {}", contents.info.format_version,
                       contents.info.rank, contents.info.world_size);
    if (contents.info.step) out += fmt::format(", step {}", *contents.info.step);
    out += '\n';
    for (const auto& [key, value] : contents.info.metadata) {
      out += fmt::format("  {} = {}\n", printable(key), json_of(value).dump());
    }
  } else {
    out += "  not written by ckptring\n";
  }
  if (!contents.has_checksums) out += "  checksums were not computed: damage cannot be noticed\n";

  std::vector<std::array<std::string, 5>> rows{{"KEY", "DTYPE", "SHAPE", "BYTES", ""}};
  for (const auto& [key, tensor] : contents.tensors) {
    const std::vector<std::int64_t> sizes = tensor.sizes();
    const Node first = contents.storages.at(tensor.record()).first_user;
    rows.push_back(
        {printable(contents.keys.path(key)), std::string(plan::name(tensor.dtype())),
         fmt::format("[{}]", fmt::join(sizes, ", ")),
         human_bytes(plan::tensor_bytes(tensor.dtype(), sizes)),
         first == key ? "" : "shares the storage of " + printable(contents.keys.path(first))});
  }
  std::array<std::size_t, 4> widths{};
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  if (rows.size() > 1) {
    for (const auto& row : rows) {
      std::string line =
          fmt::format("  {:<{}}  {:<{}}  {:<{}}  {:>{}}  {}", row[0], widths[0], row[1], widths[1],
                      row[2], widths[2], row[3], widths[3], row[4]);
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + "\n";
    }
  }
  for (const auto& [key, first] : contents.shared) {
    out += fmt::format("  {}: the same object as {}\n", printable(contents.keys.path(key)),
                       printable(contents.keys.path(first)));
  }
  for (const auto& [key, what] : contents.unsupported) {
    out += fmt::format("  {}: cannot be loaded here, it is {}\n",
                       printable(contents.keys.path(key)), printable(what));
  }
  return out +
         fmt::format(
             "  {} in {} of {}, {}; the file has {}\n", count(contents.tensors.size(), "tensor"),
             count(contents.storages.size(), "storage"), human_bytes(contents.storage_bytes()),
             count(contents.other_values, "other value"), human_bytes(contents.file_bytes));
}

}  // namespace

std::string inspect(const std::vector<std::string>& files, bool json) {
  if (json) {
    Json all = Json::array();
    for (const std::string& file : files) all.push_back(json_of(read(file)));
    // A path need not be UTF-8.
    return Json{{"files", std::move(all)}}.dump(2, ' ', false, Json::error_handler_t::replace) +
           "\n";
  }
  std::string out;
  for (const std::string& file : files) out += (out.empty() ? "" : "\n") + text_of(read(file));
  return out;
}

}  // namespace ckptring::command
