// What the checkpointers of this process have saved lately: so that they notice when another
// process saves to the same names.
//
// Two that take themselves for the same rank, or one job that was started twice, never meet at a
// temporary's lock if they save in turn; each replaces what the other has written, and everything
// looks well to both. But whoever comes back to one of its last 16 names finds another file there,
// or replaces it. (One that only ever follows the other, or comes back later than that, finds
// nothing.) Nothing is written for that, and nothing is remembered beyond the checkpointer: one
// that is made anew, or in another's place, has nothing to find.
#pragma once

#include "os/file_identity.h"
#include "store/save_sink.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ckptring::save {

/// Of one checkpointer.
class SavedFiles {
 public:
  explicit SavedFiles(int rank);
  /// Forgets them. Its saves have ended.
  ~SavedFiles();
  SavedFiles(const SavedFiles&) = delete;
  SavedFiles& operator=(const SavedFiles&) = delete;

  /// A warning for each of its files on the file system `device` that somebody else has replaced
  /// since; then it is forgotten. Other file systems, which may hang, are left alone.
  [[nodiscard]] std::vector<std::string> warnings_of_replaced(std::uint64_t device) const;

  /// Once nothing more is saved: logs such warnings for all file systems that have answered within
  /// `limit_secs`, and forgets all files.
  void close(double limit_secs) const noexcept;

 private:
  friend class SaveToName;

  const int rank_;
  const std::uint64_t saver_;
};

/// A save on its way to its target's name. While one exists, whatever is found there may be its
/// file; and where those of two checkpointers of this process have met, nobody knows whose is there
/// until another save has begun and been committed.
class SaveToName {
 public:
  SaveToName(const SavedFiles& of, const store::SaveTarget& target);
  /// Unless it is known as committed, nothing is known of what is there now.
  ~SaveToName();
  SaveToName(const SaveToName&) = delete;
  SaveToName& operator=(const SaveToName&) = delete;

  /// It has put `file` there, in the place of `replaced`.
  /// @return a warning if that was somebody else's, where one of this checkpointer's had been, and
  ///         there is memory for it
  [[nodiscard]] std::vector<std::string> committed(const os::FileIdentity& file,
                                                   const os::FileIdentity& replaced) noexcept;

 private:
  const int rank_;
  const std::string shown_path_;
  const std::string path_;
  const std::uint64_t number_;
  bool committed_ = false;
};

/// How long a checkpointer that ends looks at its files.
inline constexpr double kLastLookSecs = 2;

}  // namespace ckptring::save
