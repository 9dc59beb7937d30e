#include "plan/checkpoint_json.h"

#include "plan/utf8.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace ckptring::plan {
namespace {

// Values of one kind only, never a tree of them: to let go of a tree, the library allocates.
using Json = nlohmann::json;

// JSON has no number for these; a loss of infinity must not cost anybody a checkpoint.
constexpr const char* kFloat = "float";

std::string json_of(const MetadataValue& value) {
  const auto* const real = std::get_if<double>(&value);
  if (real != nullptr && !std::isfinite(*real)) {
    return fmt::format(R"({{"{}":"{}"}})", kFloat,
                       std::isnan(*real) ? "nan"
                       : *real > 0       ? "inf"
                                         : "-inf");
  }
  return std::visit([](const auto& plain) { return Json(plain).dump(); }, value);
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

/// Notes what has a meaning here, and reads over the rest, so that it takes no memory: a byte could
/// make a value of a hundred. What is wrong is told at the end: a newer format may have it. Of
/// equal keys the last one counts.
class Facts final : public nlohmann::json_sax<Json> {
 public:
  /// A field that is to be a whole number.
  struct Number {
    bool there = false;
    std::optional<std::int64_t> value;  ///< none: it is something else
  };

  explicit Facts(const std::string& path) : path_(path) {}

  bool is_object = false;
  Number format_version;
  Number rank;
  Number world_size;
  Number step;
  struct Id {
    bool there = false;
    std::optional<SaveId> value;  ///< none: it is something else
  } save_id;
  Metadata metadata;
  bool metadata_is_object = true;
  std::set<std::string, std::less<>> odd_metadata;  ///< keys of what no metadata hold

  bool null() override { return other(); }
  bool boolean(bool value) override { return plain(value); }
  bool number_integer(number_integer_t value) override { return integer(value); }
  bool number_unsigned(number_unsigned_t value) override {
    if (!std::in_range<std::int64_t>(value)) return other();
    return integer(static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return plain(value);
  }
  bool string(string_t& value) override {
    if (depth_ == 3 && place_ == Place::metadata) {
      if (special_key_) special_ = special_value(value);
      return true;
    }
    if (depth_ == 1 && place_ == Place::save_id) {
      save_id = {true, save_id_from(value)};
      return true;
    }
    return plain(std::move(value));
  }
  bool binary(binary_t& /*value*/) override { return other(); }

  bool start_object(std::size_t /*elements*/) override {
    enter();
    if (depth_ == 1) is_object = true;
    if (place_ != Place::metadata) return true;
    if (depth_ == 2) {
      metadata.clear();
      odd_metadata.clear();
      metadata_is_object = true;
    } else if (depth_ == 3) {  // {"float": "nan"}
      only_special_ = true;
      special_.reset();
    } else if (depth_ == 4 && special_key_) {
      special_.reset();
    }
    return true;
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      place_ = place_of(key);
    } else if (place_ == Place::metadata && depth_ == 2) {
      key_ = std::move(key);
    } else if (place_ == Place::metadata && depth_ == 3) {
      special_key_ = key == kFloat;
      only_special_ = only_special_ && special_key_;
    }
    return true;
  }
  bool end_object() override {
    if (depth_ == 3 && place_ == Place::metadata) {
      if (special_ && only_special_) {
        note_metadatum(*special_);
      } else {
        note_odd_metadatum();
      }
    }
    leave();
    return true;
  }
  bool start_array(std::size_t /*elements*/) override {
    enter();
    if (place_ != Place::metadata) return true;
    if (depth_ == 3) {
      note_odd_metadatum();
    } else if (depth_ == 4 && special_key_) {
      special_.reset();
    }
    return true;
  }
  bool end_array() override {
    leave();
    return true;
  }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const Json::exception& /*error*/) override {
    return false;
  }

 private:
  enum class Place { elsewhere, format_version, rank, world_size, step, save_id, metadata };

  static Place place_of(std::string_view key) {
    if (key == "format_version") return Place::format_version;
    if (key == "rank") return Place::rank;
    if (key == "world_size") return Place::world_size;
    if (key == "step") return Place::step;
    if (key == "save_id") return Place::save_id;
    return key == "metadata" ? Place::metadata : Place::elsewhere;
  }
  static std::optional<double> special_value(std::string_view text) {
    if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
    if (text == "inf") return std::numeric_limits<double>::infinity();
    if (text == "-inf") return -std::numeric_limits<double>::infinity();
    return std::nullopt;
  }

  void enter() {
    if (depth_ == 1) (void)other();
    if (++depth_ > kMaxJsonDepth) damaged(path_, "it is nested too deeply");
  }
  void leave() {
    if (--depth_ <= 1) place_ = Place::elsewhere;
  }

  [[nodiscard]] Number* number_at_hand() {
    switch (place_) {
      case Place::format_version:
        return &format_version;
      case Place::rank:
        return &rank;
      case Place::world_size:
        return &world_size;
      case Place::step:
        return &step;
      default:
        return nullptr;
    }
  }

  bool integer(std::int64_t value) {
    Number* const number = depth_ == 1 ? number_at_hand() : nullptr;
    if (number == nullptr) return plain(value);
    *number = {true, value};
    return true;
  }

  /// What metadata may have.
  bool plain(MetadataValue value) {
    if (depth_ != 2 || place_ != Place::metadata) return other();
    note_metadatum(std::move(value));
    return true;
  }

  /// What no field that is known may have.
  bool other() {
    if (depth_ == 1) {
      if (Number* const number = number_at_hand()) *number = {true, std::nullopt};
      if (place_ == Place::save_id) save_id = {true, std::nullopt};
      if (place_ == Place::metadata) metadata_is_object = false;
    } else if (depth_ == 2 && place_ == Place::metadata) {
      note_odd_metadatum();
    } else if (depth_ == 3 && place_ == Place::metadata) {
      if (special_key_) special_.reset();
    }
    return true;
  }

  void note_metadatum(MetadataValue value) {
    odd_metadata.erase(key_);
    metadata.insert_or_assign(std::move(key_), std::move(value));
  }
  void note_odd_metadatum() { odd_metadata.insert(std::move(key_)); }

  const std::string& path_;
  int depth_ = 0;  ///< containers that are open
  Place place_ = Place::elsewhere;
  std::string key_;  ///< in the metadata
  // Of the object at hand, which stands for a float.
  bool special_key_ = false;   ///< the key at hand is the one that it has to have
  bool only_special_ = false;  ///< so were all before
  std::optional<double> special_;
};

int small_number(const Facts::Number& number, const char* field, std::int64_t least,
                 const std::string& path) {
  if (!number.there) damaged(path, fmt::format("{} is missing", field));
  if (!number.value || *number.value < least || *number.value > std::numeric_limits<int>::max()) {
    damaged(path, fmt::format("{} is not a whole number from {} on", field, least));
  }
  return static_cast<int>(*number.value);
}

}  // namespace

std::string to_json(const FileFacts& facts) {
  // The keys are sorted, as a reader of JSON would write them.
  std::string text = fmt::format(R"({{"format_version":{},"metadata":{{)", kFormatVersion);
  for (bool first = true; const auto& [key, value] : facts.metadata) {
    require_text(key, "a metadata key");
    if (const auto* words = std::get_if<std::string>(&value)) {
      require_text(*words, fmt::format("the metadata value of \"{}\"", key).c_str());
    }
    if (!std::exchange(first, false)) text += ',';
    text.append(Json(key).dump()).append(":").append(json_of(value));
  }
  text += fmt::format(R"(}},"rank":{})", facts.rank.global_rank);
  if (facts.save_id) text += fmt::format(R"(,"save_id":"{}")", to_string(*facts.save_id));
  if (facts.step) text += fmt::format(R"(,"step":{})", *facts.step);
  text += fmt::format(R"(,"world_size":{}}})", facts.rank.global_world_size);
  text += '\n';
  if (text.size() > kMaxJson) {
    throw Error(
        ErrorCode::unsupported_value, "plan the file", "",
        fmt::format("the metadata need {} bytes, at most {} are allowed", text.size(), kMaxJson));
  }
  return text;
}

CheckpointInfo from_json(std::string_view text, const std::string& path) {
  Facts facts(path);
  if (!Json::sax_parse(text.begin(), text.end(), &facts) || !facts.is_object) {
    damaged(path, "it is not a JSON object");
  }

  CheckpointInfo info;
  info.path = path;
  info.format_version = small_number(facts.format_version, "format_version", 1, path);
  // Before anything else is looked at: a newer format may have changed it.
  if (info.format_version > kFormatVersion) {
    throw Error(ErrorCode::newer_format, "read", path,
                fmt::format("it is written in format version {}; this build reads up to version {}",
                            info.format_version, kFormatVersion));
  }
  info.rank = small_number(facts.rank, "rank", 0, path);
  info.world_size = small_number(facts.world_size, "world_size", 1, path);
  if (info.rank >= info.world_size) damaged(path, "rank is not below world_size");
  if (facts.step.there && !facts.step.value) {
    damaged(path, "step is not a whole number of 64 bits");
  }
  info.step = facts.step.value;
  if (facts.save_id.there && !facts.save_id.value) {
    damaged(path, "save_id is not a string of 32 hexadecimal digits");
  }
  info.save_id = facts.save_id.value;
  if (!facts.metadata_is_object) damaged(path, "metadata is not an object");
  if (!facts.odd_metadata.empty()) {
    damaged(path, fmt::format("metadata \"{}\" is neither bool, integer, float nor string",
                              *facts.odd_metadata.begin()));
  }
  info.metadata = std::move(facts.metadata);
  return info;
}

}  // namespace ckptring::plan
