// The hidden file that a save is written to.
//
// Exactly one open file description is ever made on it by one process, and all its I/O goes
// through that one. Writes that are still in flight when the process is killed keep it, and with
// it the lock: a successor that gets the lock knows that none is left.
#pragma once

#include "store/directories.h"
#include "store/file_system.h"
#include "store/save_sink.h"

#include <optional>
#include <string>

namespace ckptring::store {

class TemporaryFile {
 public:
  enum class Acquired {
    yes,
    predecessor_writing,  ///< somebody still holds this file's lock
    name_in_use,          ///< another save to the same final name is under way
    directory_in_use,     ///< others begin to save there at this moment
  };

  /// Refers to all arguments as long as it lives.
  TemporaryFile(FileSystem& files, const SaveTarget& target, SaveDirectories& directories);

  /// Opens the file, or creates it exclusively where none can exist yet, and locks it; and opens
  /// the directories that are to be synced. After an answer other than yes: call again a little
  /// later. With Beginning::renaming there may be none any more: then `fd()` is -1.
  /// @throws Error
  Acquired acquire(Beginning beginning);

  /// Gives the file `bytes` bytes of disk space where the file system can; else only the size.
  /// @throws Error, no_space at once if it does not fit
  void reserve(std::uint64_t bytes);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /// Whether `acquire` made it: whatever an earlier process wrote is not in it.
  [[nodiscard]] bool created() const noexcept { return created_; }

  /// What is left to say where the file is gone with bytes that are nowhere else.
  [[noreturn]] void report_lost() const;
  /// False where the file system has no locks.
  [[nodiscard]] bool locked() const noexcept { return locked_; }

  /// Removes the file, if this save may have made it, and closes it.
  void remove() noexcept;
  /// Closes the file and so lets go of the lock.
  void close() noexcept { fd_.reset(); }

 private:
  [[nodiscard]] bool open_existing();
  [[nodiscard]] std::optional<Acquired> create();

  FileSystem& files_;
  const SaveTarget& target_;
  SaveDirectories& directories_;
  std::string path_;
  os::UninheritedFd fd_;
  bool may_exist_ = false;  ///< made by this save, in this process or an earlier one
  bool created_ = false;
  bool locked_ = false;
};

}  // namespace ckptring::store
