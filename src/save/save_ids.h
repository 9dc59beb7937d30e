// The ids of a rank's saves, where nobody gives any.
#pragma once

#include <ckptring/rank_info.h>
#include <ckptring/save_id.h>

#include <cstdint>
#include <optional>
#include <string>

namespace ckptring::save {

/// Every rank of a job finds the same id for the same save, without a word to another: it follows
/// from what is unique to this launch, the path's last name, the step, and how often this was saved
/// in this launch, be it by several savers. Thread-safe.
class SaveIds {
 public:
  /// Reads the environment, here and never again.
  explicit SaveIds(const RankInfo& rank);

  /// Of the next save to `path`; nothing where there is one rank, whose only file needs none, or
  /// nothing that is unique to this launch, which is told once.
  [[nodiscard]] std::optional<SaveId> next(const std::string& path,
                                           std::optional<std::int64_t> step);

 private:
  const RankInfo rank_;
  const std::optional<std::string> launch_;
};

}  // namespace ckptring::save
