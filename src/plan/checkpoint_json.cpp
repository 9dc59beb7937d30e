#include "plan/checkpoint_json.h"

#include "plan/utf8.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace ckptring::plan {
namespace {

using Json = nlohmann::json;  // keeps its keys sorted

// JSON has no number for these; a loss of infinity must not cost anybody a checkpoint.
constexpr const char* kFloat = "float";

Json json_of(double value) {
  if (std::isfinite(value)) return value;
  return Json{{kFloat, std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"}};
}

[[noreturn]] void damaged(const std::string& path, const std::string& field) {
  throw Error(ErrorCode::damaged, "read", path, "record ckptring.json: " + field);
}

void require_text(std::string_view text, const char* what) {
  if (!is_utf8(text)) {
    throw Error(ErrorCode::unsupported_value, "plan the file", "",
                fmt::format("{} is not UTF-8", what));
  }
}

int small_number(const Json& json, const char* field, std::int64_t least, const std::string& path) {
  const auto found = json.find(field);
  if (found == json.end()) damaged(path, fmt::format("{} is missing", field));
  if (!found->is_number_integer() || *found < least || *found > std::numeric_limits<int>::max()) {
    damaged(path, fmt::format("{} is not a whole number from {} on", field, least));
  }
  return found->get<int>();
}

MetadataValue metadata_value(const Json& json, const std::string& key, const std::string& path) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_unsigned() &&
      json.get<std::uint64_t>() <=
          static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return json.get<std::int64_t>();
  }
  if (json.is_number_integer() && !json.is_number_unsigned()) return json.get<std::int64_t>();
  if (json.is_number_float()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_object() && json.size() == 1 && json.contains(kFloat)) {
    const Json& which = json.at(kFloat);
    if (which == "nan") return std::numeric_limits<double>::quiet_NaN();
    if (which == "inf") return std::numeric_limits<double>::infinity();
    if (which == "-inf") return -std::numeric_limits<double>::infinity();
  }
  damaged(path, fmt::format("metadata \"{}\" is neither bool, integer, float nor string", key));
}

/// Keeps what has a meaning here. The rest is read over, so that it takes no memory: a byte could
/// make a value of a hundred. What metadata cannot hold is noted only: a newer format may have it.
class Filter {
 public:
  Filter(const std::string& path, bool& odd_metadata) : path_(path), odd_metadata_(odd_metadata) {}

  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    using Event = Json::parse_event_t;
    if (depth > kMaxNesting) damaged(path_, "it is nested too deeply");
    if (event == Event::key && depth == 1) {
      const auto& key = parsed.get_ref<const std::string&>();
      in_metadata_ = key == "metadata";
      return in_metadata_ || std::ranges::find(kKeys, key) != kKeys.end();
    }
    if (event != Event::object_start && event != Event::array_start) return true;
    if (depth == 0) return true;
    // {"metadata": {key: {"float": "nan"}}}
    const bool known = in_metadata_ && depth <= 2 && event == Event::object_start;
    if (in_metadata_ && !known) odd_metadata_ = true;
    return known;
  }

 private:
  static constexpr int kMaxNesting = 100;
  static constexpr std::array<std::string_view, 4> kKeys{"format_version", "rank", "step",
                                                         "world_size"};
  const std::string& path_;
  bool& odd_metadata_;
  bool in_metadata_ = false;
};

}  // namespace

std::string to_json(const RankInfo& rank, std::optional<std::int64_t> step,
                    const Metadata& metadata) {
  Json facts = Json::object();
  for (const auto& [key, value] : metadata) {
    require_text(key, "a metadata key");
    if (const auto* text = std::get_if<std::string>(&value)) {
      require_text(*text, fmt::format("the metadata value of \"{}\"", key).c_str());
    }
    facts[key] = std::visit(
        [](const auto& plain) -> Json {
          if constexpr (std::is_same_v<std::decay_t<decltype(plain)>, double>) {
            return json_of(plain);
          } else {
            return plain;
          }
        },
        value);
  }
  Json json{{"format_version", kFormatVersion},
            {"rank", rank.global_rank},
            {"world_size", rank.global_world_size},
            {"metadata", std::move(facts)}};
  if (step) json["step"] = *step;
  std::string text = json.dump() + "\n";
  if (text.size() > kMaxJson) {
    throw Error(
        ErrorCode::unsupported_value, "plan the file", "",
        fmt::format("the metadata need {} bytes, at most {} are allowed", text.size(), kMaxJson));
  }
  return text;
}

CheckpointInfo from_json(std::string_view text, const std::string& path) {
  bool odd_metadata = false;
  const Json json = Json::parse(text, Filter(path, odd_metadata), /*allow_exceptions=*/false);
  if (!json.is_object()) damaged(path, "it is not a JSON object");

  CheckpointInfo info;
  info.path = path;
  info.format_version = small_number(json, "format_version", 1, path);
  // Before anything else is looked at: a newer format may have changed it.
  if (info.format_version > kFormatVersion) {
    throw Error(ErrorCode::newer_format, "read", path,
                fmt::format("it is written in format version {}; this build reads up to version {}",
                            info.format_version, kFormatVersion));
  }
  if (odd_metadata) damaged(path, "metadata are more than bools, integers, floats and strings");
  info.rank = small_number(json, "rank", 0, path);
  info.world_size = small_number(json, "world_size", 1, path);
  if (info.rank >= info.world_size) damaged(path, "rank is not below world_size");
  if (const auto step = json.find("step"); step != json.end()) {
    if (!step->is_number_integer() ||
        (step->is_number_unsigned() &&
         step->get<std::uint64_t>() >
             static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))) {
      damaged(path, "step is not a whole number of 64 bits");
    }
    info.step = step->get<std::int64_t>();
  }
  if (const auto metadata = json.find("metadata"); metadata != json.end()) {
    if (!metadata->is_object()) damaged(path, "metadata is not an object");
    for (const auto& [key, value] : metadata->items()) {
      info.metadata.emplace(key, metadata_value(value, key, path));
    }
  }
  return info;
}

}  // namespace ckptring::plan
