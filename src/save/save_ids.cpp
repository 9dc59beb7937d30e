#include "save/save_ids.h"

#include "base/launcher.h"
#include "base/log.h"

#include <fmt/format.h>

#include <boost/uuid/name_generator_sha1.hpp>
#include <boost/uuid/uuid.hpp>

#include <algorithm>
#include <functional>
#include <mutex>
#include <string_view>
#include <unordered_map>

namespace ckptring::save {
namespace {

/// Ranks may have mounted what is above it at other places.
std::string_view last_name(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return path.substr(path.rfind('/') + 1);
}

/// How often this was asked for before, by its hash: of many saves nothing more is kept.
std::uint64_t times_before(const std::string& what) {
  static std::mutex counting;
  static auto& times = *new std::unordered_map<std::size_t, std::uint32_t>;  // as the process ends
  const std::scoped_lock lock(counting);
  return times[std::hash<std::string>{}(what)]++;
}

}  // namespace

SaveIds::SaveIds(const RankInfo& rank)
    : rank_(rank),
      launch_(rank.global_world_size > 1 ? base::launch_id() : std::optional<std::string>{}) {}

std::optional<SaveId> SaveIds::next(const std::string& path, std::optional<std::int64_t> step) {
  if (rank_.global_world_size == 1) return std::nullopt;
  if (!launch_) {
    if (static base::FirstTime first_time; first_time()) {
      base::LogContext{rank_.global_rank}.warn(
          "nothing in the environment is unique to this launch, so files of two attempts to save "
          "one step into one directory cannot be told apart; give SaveOptions::save_id, or "
          "torchrun an --rdzv-id");
    }
    return std::nullopt;
  }
  const std::string name =
      fmt::format("{}/{}", last_name(path), step ? std::to_string(*step) : std::string("-"));
  const std::string what = fmt::format("{}/{}/{}", *launch_, rank_.global_world_size, name);
  const std::string all =
      fmt::format("{}/{}", what, times_before(fmt::format("{}/{}", rank_.global_rank, what)));
  static constexpr boost::uuids::uuid kNamespace{{0x2f, 0x8a, 0x61, 0xd4, 0x0b, 0x53, 0x4e, 0x97,
                                                  0x9c, 0x36, 0x7d, 0xe1, 0x15, 0xc8, 0xa2, 0x4f}};
  const boost::uuids::uuid uuid = boost::uuids::name_generator_sha1(kNamespace)(all);
  SaveId id;
  std::copy(uuid.begin(), uuid.end(), id.bytes.begin());
  return id;
}

}  // namespace ckptring::save
