// The directories that lead to a save's file: made before it, durable with it, removed again if
// the save is undone.
#pragma once

#include "store/file_system.h"
#include "store/save_sink.h"

#include <string>
#include <string_view>
#include <vector>

namespace ckptring::store {

/// `directory` + "/" + `name`.
[[nodiscard]] std::string path_in(const std::string& directory, std::string_view name);

/// Opens a directory to lock or to sync it; empty if there is none.
/// @throws Error
[[nodiscard]] os::UninheritedFd open_directory(FileSystem& files, const std::string& path);

class SaveDirectories {
 public:
  /// Refers to both arguments as long as it lives.
  SaveDirectories(FileSystem& files, const SaveTarget& target);

  /// Makes what is missing, with mode 0777 under the process's umask; also what was there when
  /// the target was made and was removed since, by the abort of another save.
  /// @throws Error
  void make();

  /// After a crash nobody knows which of the directories that were missing were made by this save.
  /// From now on all of them count as made by it. `remove_made` takes only empty ones anyway.
  void claim_missing();

  /// Opens all that `sync` is for: once the file has its final name it is too late to find out that
  /// one of them may not be.
  /// @return whether all are there
  /// @throws Error
  [[nodiscard]] bool open();

  /// Makes their names durable: fsync of `directory` and of each ancestor down to the deepest one
  /// that existed before the save, as they were opened. They are still the ones that lead to the
  /// temporary, for none that has something in it can be made anew. A failed sync is recorded
  /// before anything else is done.
  /// @throws Error
  void sync(const PhaseRecorder& record) const;

  /// Removes the directories that this save made, the innermost first, up to the first that is
  /// not empty.
  void remove_made() noexcept;

 private:
  /// `directory` without its last `levels` components.
  [[nodiscard]] std::string ancestor(std::uint32_t levels) const;
  void make_ancestor(std::uint32_t levels);

  FileSystem& files_;
  const SaveTarget& target_;
  std::vector<std::string> made_;          ///< outermost first
  std::uint32_t sync_levels_;              ///< how far up names may be new
  std::vector<os::UninheritedFd> opened_;  ///< by levels up
};

}  // namespace ckptring::store
