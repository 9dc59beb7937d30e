// Whether a save may take its final name: what keeps an older save from being renamed over a newer
// one.
//
// A checkpointer that lives wants its save there, whatever is there now. Once it is gone, alone or
// with its trainer, another one may have been made and have saved to the same name. So the orphan
// of the first renames only over what was there when its save was announced, or when it took the
// temporary's lock while the checkpointer lived (until it lets go of that, nobody else saves to the
// name), or over what saves of this ring have put there. All that it must know of them is in the
// ring, so a successor knows it too.
#pragma once

#include "ring/segment.h"
#include "store/file_system.h"
#include "store/save_sink.h"

#include <cstdint>
#include <functional>

namespace ckptring::drain {

class FinalName {
 public:
  /// @param orphaned whether the trainer is gone, or has let go of the ring, at this moment
  FinalName(ring::SegmentView segment, store::FileSystem& files, std::function<bool()> orphaned);

  /// The lock of the save's temporary has just been taken.  @throws Error
  void note_locked(std::uint64_t save, const store::SaveTarget& target);

  /// The save is about to be renamed, and *renaming* to be stored; or a predecessor has stored it,
  /// and may have renamed. Notes which file it is, and which one it is renamed over.
  /// @throws Error busy_elsewhere if another checkpointer has saved to the name
  void check(std::uint64_t save, const store::SaveTarget& target);

 private:
  [[nodiscard]] bool may_be_replaced(std::uint64_t save, const os::FileIdentity& file) const;

  ring::SegmentView segment_;
  store::FileSystem& files_;
  std::function<bool()> orphaned_;
};

}  // namespace ckptring::drain
