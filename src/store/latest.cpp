#include "store/latest.h"

#include "base/launcher.h"
#include "base/log.h"
#include "base/out_of_memory.h"
#include "plan/pt_archive.h"
#include "store/deadline.h"
#include "store/directories.h"
#include "store/file_at.h"
#include "store/file_lock.h"
#include "store/file_source.h"
#include "store/missing.h"
#include "store/temporary_name.h"

#include <ckptring/error.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>

namespace ckptring {
namespace store {
namespace {

constexpr std::chrono::milliseconds kLockPause{20};

/// Nobody tells this code its rank, unless the launcher did.
base::LogContext launched_log() {
  try {
    const auto launch = base::launched();
    return {launch ? launch->rank : 0};
  } catch (const Error&) {
    return {};  // who needs the rank to save or load will complain
  }
}

/// A shortage of this process or system says nothing of what was to be looked at: to do without
/// that would be to hand back an older checkpoint for want of a descriptor.
bool is_shortage(int reason) { return reason == EMFILE || reason == ENFILE || reason == ENOMEM; }

/// Nobody here may look there, so nobody has saved there from here.
bool is_refusal(int reason) { return reason == EACCES || reason == EPERM || reason == ELOOP; }

/// A subdirectory with files that may be a checkpoint's.
struct Candidate {
  std::string path;
  std::string name;
  std::vector<int> ranks;                ///< whose files are there, rising
  std::vector<os::FileIdentity> files;   ///< theirs
  std::vector<std::string> temporaries;  ///< paths

  friend bool operator==(const Candidate&, const Candidate&) = default;
};

/// What is in a run's directory.
struct Listing {
  std::vector<Candidate> candidates;
  std::vector<std::string> unreadable;  ///< why a subdirectory cannot be one of them
};

/// @throws Error
Candidate look_into(FileSystem& files, const std::string& path, std::string name) {
  Candidate candidate;
  candidate.path = path;
  candidate.name = std::move(name);
  std::vector<std::string> entries;
  if (files.list(path, entries) != 0) {
    // Not a directory; or removed, by an abort or by whoever tidies up, since it was listed.
    if (errno == ENOTDIR || errno == ENOENT) return candidate;
    throw Error::from_errno(errno, "list directory", path);
  }
  for (const std::string& entry : entries) {
    if (const auto rank = rank_of_final_name(entry)) {
      candidate.ranks.push_back(*rank);
    } else if (final_name_of_temporary(entry)) {
      candidate.temporaries.push_back(path_in(path, entry));
    }
  }
  std::sort(candidate.ranks.begin(), candidate.ranks.end());
  std::sort(candidate.temporaries.begin(), candidate.temporaries.end());
  for (const int rank : candidate.ranks) {
    candidate.files.push_back(file_at(files, path_in(path, final_name(rank))));
  }
  return candidate;
}

Listing scan(FileSystem& files, const std::string& directory) {
  std::vector<std::string> names;
  if (files.list(directory, names) != 0) {
    if (errno == ENOTDIR) {
      throw Error(ErrorCode::invalid_argument, "find checkpoints in", directory,
                  "it is not a directory", ENOTDIR);
    }
    throw error_at(files, errno, "find checkpoints in", directory);
  }
  std::sort(names.begin(), names.end());
  Listing listing;
  for (std::string& name : names) {
    if (name.starts_with('.')) continue;  // somebody's trash, snapshots, a copy under way
    const std::string path = path_in(directory, name);
    try {
      Candidate candidate = look_into(files, path, std::move(name));
      if (candidate.ranks.empty() && candidate.temporaries.empty()) continue;
      listing.candidates.push_back(std::move(candidate));
    } catch (const Error& error) {
      if (!is_refusal(error.errno_value())) throw;
      listing.unreadable.emplace_back(error.what());
    }
  }
  return listing;
}

bool is_locked(FileSystem& files, const std::string& path) {
  const os::UninheritedFd fd = open_file(files, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd && is_shortage(errno)) throw Error::from_errno(errno, "open", path);
  if (!fd) return false;  // committed or removed since it was listed, or not ours to judge
  try {
    // Shared, and for a moment only: whoever wants it exclusively asks again.
    if (try_lock(files, fd.get(), path, /*shared=*/true) != LockOutcome::held_elsewhere) {
      return false;
    }
    // Renamed since: then it is a finished file, whose lock is about to go.
    return still_named(files, fd.get(), path);
  } catch (const Error& error) {
    if (is_shortage(error.errno_value())) throw;
    return false;  // nor this
  }
}

/// The path of a temporary whose save is under way; empty if there is none.
std::string find_locked(FileSystem& files, const std::vector<Candidate>& candidates) {
  for (const Candidate& candidate : candidates) {
    for (const std::string& path : candidate.temporaries) {
      if (is_locked(files, path)) return path;
    }
  }
  return {};
}

/// Waits until nobody is saving. A listing is no snapshot: a save may be committed where nobody has
/// looked yet, after the next one has begun where nobody looks again. While saves follow one
/// another there is always one under way, so two listings that show none and are the same show all
/// that there is.
Listing scan_when_quiet(FileSystem& files, const std::string& directory, double wait_secs) {
  const auto deadline = deadline_after(wait_secs);
  std::optional<std::vector<Candidate>> before;  // of a listing that showed none
  for (;;) {
    Listing listing = scan(files, directory);
    const std::string locked = find_locked(files, listing.candidates);
    if (locked.empty() && before == listing.candidates) return listing;
    const bool first_quiet_one = locked.empty() && !before;
    if (std::chrono::steady_clock::now() >= deadline && !first_quiet_one) {
      if (!locked.empty()) {
        launched_log().warn(
            "{} is still being written after {:g} seconds: the newest complete checkpoint is used "
            "instead",
            locked, wait_secs);
      }
      return listing;
    }
    if (locked.empty()) {
      before = std::move(listing.candidates);
    } else {
      before.reset();
      std::this_thread::sleep_for(kLockPause);
    }
  }
}

std::optional<std::int64_t> last_number(std::string_view name) {
  const std::size_t last = name.find_last_of("0123456789");
  if (last == std::string_view::npos) return std::nullopt;
  std::size_t first = last;
  while (first > 0 && name[first - 1] >= '0' && name[first - 1] <= '9') --first;
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(name.data() + first, name.data() + last + 1, number);
  (void)end;
  if (error != std::errc{}) return std::nullopt;  // too large for a step
  return number;
}

/// What one file says of itself; nothing, with a line in the log, if it is not whole.
std::optional<CheckpointInfo> read_info(const Candidate& candidate, int rank) {
  try {
    const auto source = open_file_source(path_in(candidate.path, final_name(rank)));
    return plan::PtArchive::open(*source).info();
  } catch (const Error& error) {
    if (is_shortage(error.errno_value())) throw;
    launched_log().warn("not counted as a checkpoint: {}", error.what());
    return std::nullopt;
  }
}

/// Whether two files say the same. Not a number is the same as itself here.
bool same_facts(const Metadata& a, const Metadata& b) {
  return std::ranges::equal(a, b, [](const auto& left, const auto& right) {
    const auto* const real = std::get_if<double>(&left.second);
    const auto* const other = std::get_if<double>(&right.second);
    const bool both_nan =
        real != nullptr && other != nullptr && std::isnan(*real) && std::isnan(*other);
    return left.first == right.first && (both_nan || left.second == right.second);
  });
}

/// Whether the files of all the ranks that `first` (the lowest rank's info) speaks of are there,
/// whole, and say the same.
bool is_complete(const Candidate& candidate, const CheckpointInfo& first) {
  const auto incomplete = [&](const std::string& why) {
    launched_log().info("{} is not complete: {}", candidate.path, why);
    return false;
  };
  // Files of others do not say how many belong together: then it is all that are there.
  const bool ours = first.format_version != 0;
  const int world_size = ours ? first.world_size : candidate.ranks.back() + 1;
  if (world_size < 1) return incomplete("its world size is nonsense");
  for (int rank = 0; rank < world_size; ++rank) {
    if (!std::binary_search(candidate.ranks.begin(), candidate.ranks.end(), rank)) {
      return incomplete("the file of rank " + std::to_string(rank) + " is missing");
    }
  }
  for (int rank = 0; rank < world_size; ++rank) {
    const std::optional<CheckpointInfo> info = rank == 0 ? first : read_info(candidate, rank);
    if (!info) return false;
    if (ours != (info->format_version != 0) ||
        (ours && (info->rank != rank || info->world_size != world_size)) ||
        info->step != first.step || info->save_id != first.save_id ||
        !same_facts(info->metadata, first.metadata)) {
      return incomplete("the file of rank " + std::to_string(rank) + " belongs to another save");
    }
  }
  if (ours && world_size > 1 && !first.save_id) {
    launched_log().warn(
        "{} has no save ids: that its {} files are of one attempt to save is not certain",
        candidate.path, world_size);
  }
  return true;
}

}  // namespace

std::optional<CheckpointInfo> latest_in(FileSystem& files, const std::string& directory,
                                        const LatestOptions& options) {
  if (!(options.wait_secs >= 0)) {
    throw Error(ErrorCode::invalid_argument, "find checkpoints in", directory,
                "wait_secs is negative");
  }
  Listing listing;
  try {
    listing = scan_when_quiet(files, directory, options.wait_secs);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::not_found) throw;
    if (!dangling_link_in(files, directory).empty()) throw;
    return std::nullopt;  // before the first save nobody has made the directory
  }

  for (const std::string& why : listing.unreadable) {
    launched_log().warn("not looked into for checkpoints: {}", why);
  }
  struct Ranked {
    std::optional<std::int64_t> order;  ///< nothing sorts before everything
    const Candidate* candidate;
    CheckpointInfo info;
  };
  std::vector<Ranked> ranked;
  for (const Candidate& candidate : listing.candidates) {
    if (candidate.ranks.empty() || candidate.ranks.front() != 0) continue;
    std::optional<CheckpointInfo> info = read_info(candidate, 0);
    if (!info) continue;
    const auto order = info->step ? info->step : last_number(candidate.name);
    ranked.push_back({order, &candidate, std::move(*info)});
  }
  std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return std::tie(b.order, b.candidate->name) < std::tie(a.order, a.candidate->name);
  });
  for (Ranked& entry : ranked) {
    if (!is_complete(*entry.candidate, entry.info)) continue;
    entry.info.path = entry.candidate->path;
    return std::move(entry.info);
  }
  return std::nullopt;
}

}  // namespace store

std::optional<CheckpointInfo> latest(const std::string& directory, const LatestOptions& options) {
  return base::or_out_of_memory("find the latest checkpoint below", directory, [&] {
    return store::latest_in(store::system_files(), directory, options);
  });
}

}  // namespace ckptring
