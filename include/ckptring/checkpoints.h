// Finding checkpoints on disk, and cleaning up after crashes. Torch-free.
#pragma once

#include <ckptring/export.h>
#include <ckptring/save_id.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace ckptring {

/// The caller's own facts about a checkpoint; stored in its `ckptring.json` record.
using MetadataValue = std::variant<bool, std::int64_t, double, std::string>;
using Metadata = std::map<std::string, MetadataValue>;

/// What a checkpoint says about itself. Files of stock `torch.save` have only `path`.
struct CheckpointInfo {
  std::string path;                  ///< the directory given to `save`, or the single file
  std::optional<std::int64_t> step;  ///< `SaveOptions::step`
  int format_version = 0;            ///< 0: not written by this library
  int rank = 0;
  int world_size = 1;
  std::optional<SaveId> save_id = {};  ///< of all files of the same attempt
  Metadata metadata;
};

struct LatestOptions {
  /// How long to wait while another checkpointer is still committing below `directory`. After
  /// that the newest complete one is returned, with a warning in the log.
  double wait_secs = 30;
};

/// The newest checkpoint below `directory`: the subdirectory with the highest step (by metadata,
/// else by the last number in its name) that holds whole files of all its ranks with equal step,
/// metadata and save id: of one attempt to save (without ids, as the log then says, of ranks that
/// agree). Nothing if there is none, or no such directory yet. Hidden subdirectories are not
/// looked at; one that may not be looked into is left out with a warning. Reads the indexes of the
/// files, not their payloads, but of the files of every rank: in a job of many ranks, let one call
/// it and tell the others.
/// @throws Error invalid_argument (a file, a negative wait), permission, not_found (a link to
///         nothing), io (also want of descriptors or memory)
CKPTRING_API std::optional<CheckpointInfo> latest(const std::string& directory,
                                                  const LatestOptions& options = {});

/// What `clean` removed (absolute paths), and what it left because it may still be in use.
struct CleanResult {
  std::vector<std::string> removed;
  std::vector<std::string> in_use;
};

/// Removes hidden temporaries of dead processes below `directory`, of whatever file (`.NAME.`, 32
/// hexadecimal digits, `.tmp`): those that nobody has locked
/// and that are at least `min_age_secs` old. Committed checkpoints are never touched.
CKPTRING_API CleanResult clean(const std::string& directory, double min_age_secs = 3600);

}  // namespace ckptring
