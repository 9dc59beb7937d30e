#include "inspect.h"

#include "plan/key_path.h"
#include "plan/pt_archive.h"
#include "plan/tensor_bounds.h"
#include "plan/value.h"
#include "store/file_source.h"
#include "words.h"

#include <ckptring/checkpoints.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

namespace ckptring::command {
namespace {

using Json = nlohmann::ordered_json;

struct FoundTensor {
  std::string key;
  plan::Tensor tensor;
};

/// Everything in one file.
struct Contents {
  std::string path;
  std::uint64_t file_bytes = 0;
  CheckpointInfo info;
  std::vector<FoundTensor> tensors;
  std::vector<std::pair<std::string, std::string>> unsupported;  ///< key, what
  std::uint64_t other_values = 0;
  std::map<std::string, std::uint64_t> storages;  ///< bytes, by key: shared ones count once
  std::map<std::string, std::string> first_user;  ///< of each storage

  [[nodiscard]] std::uint64_t storage_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [key, bytes] : storages) sum += bytes;
    return sum;
  }
};

class Collect {
 public:
  explicit Collect(Contents& contents) : contents_(contents) {}

  void operator()(const plan::Value& value) { std::visit(*this, value.data); }
  void operator()(const plan::Tensor& tensor) {
    contents_.tensors.push_back({keys_.text(), tensor});
    contents_.storages.emplace(tensor.storage_key, tensor.storage_bytes);
    contents_.first_user.emplace(tensor.storage_key, keys_.text());
  }
  void operator()(const std::shared_ptr<plan::List>& list) { items(list->items); }
  void operator()(const std::shared_ptr<plan::Tuple>& tuple) { items(tuple->items); }
  void operator()(const std::shared_ptr<plan::Dict>& dict) {
    for (const auto& [key, value] : dict->items) {
      keys_.push_key(key);
      (*this)(value);
      keys_.pop();
    }
  }
  void operator()(const plan::Unsupported& what) {
    contents_.unsupported.emplace_back(keys_.text(), what.what);
  }
  template <class Leaf>
  void operator()(const Leaf&) {
    ++contents_.other_values;
  }

 private:
  void items(const std::vector<plan::Value>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      keys_.push_index(i);
      (*this)(values[i]);
      keys_.pop();
    }
  }

  Contents& contents_;
  plan::KeyPath keys_;
};

Contents read(const std::string& path) {
  const std::unique_ptr<plan::ByteSource> source = store::open_file_source(path);
  const plan::PtArchive archive = plan::PtArchive::open(*source);
  Contents contents;
  contents.path = path;
  contents.file_bytes = source->size();
  contents.info = archive.info();
  Collect{contents}(archive.read_value(*source));
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
    tensor_bytes += plan::tensor_bytes(tensor);
    tensors.push_back({{"key", key},
                       {"dtype", plan::name(tensor.dtype)},
                       {"shape", tensor.sizes},
                       {"strides", tensor.strides},
                       {"offset", tensor.offset},
                       {"bytes", plan::tensor_bytes(tensor)},
                       {"storage", tensor.storage_key},
                       {"storage_bytes", tensor.storage_bytes},
                       {"location", tensor.location},
                       {"requires_grad", tensor.requires_grad}});
  }
  Json unsupported = Json::array();
  for (const auto& [key, what] : contents.unsupported) {
    unsupported.push_back({{"key", key}, {"what", what}});
  }
  file["tensors"] = std::move(tensors);
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

  std::vector<std::array<std::string, 5>> rows{{"KEY", "DTYPE", "SHAPE", "BYTES", ""}};
  for (const auto& [key, tensor] : contents.tensors) {
    std::string shape;
    for (const std::int64_t size : tensor.sizes) {
      shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    }
    const std::string& first = contents.first_user.at(tensor.storage_key);
    rows.push_back({printable(key), std::string(plan::name(tensor.dtype)), "[" + shape + "]",
                    human_bytes(plan::tensor_bytes(tensor)),
                    first == key ? "" : "shares the storage of " + printable(first)});
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
  for (const auto& [key, what] : contents.unsupported) {
    out += fmt::format("  {}: cannot be loaded here, it is {}\n", printable(key), printable(what));
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
