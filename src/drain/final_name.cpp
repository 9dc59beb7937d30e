#include "drain/final_name.h"

#include "ring/progress_of.h"
#include "store/directories.h"
#include "store/file_at.h"

#include <ckptring/error.h>

#include <string>
#include <utility>

namespace ckptring::drain {

FinalName::FinalName(ring::SegmentView segment, store::FileSystem& files,
                     std::function<bool()> orphaned)
    : segment_(segment), files_(files), orphaned_(std::move(orphaned)) {}

void FinalName::note_locked(std::uint64_t save, const store::SaveTarget& target) {
  const os::FileIdentity there =
      store::file_at(files_, store::path_in(target.directory, target.final_name));
  // Asked after the look: then the checkpointer lived when this was there.
  if (!orphaned_()) segment_.record(save).outcome.replaced = there;
}

void FinalName::check(std::uint64_t save, const store::SaveTarget& target) {
  ring::Outcome& outcome = segment_.record(save).outcome;
  const std::string path = store::path_in(target.directory, target.final_name);
  const os::FileIdentity own =
      store::file_at(files_, store::path_in(target.directory, target.temporary_name));
  if (!own.exists()) {
    // Renamed by the predecessor; or removed as a dead process's, in the moment in which nobody had
    // locked it. What another save has put there since would pass for it.
    if (ring::progress_of(segment_.record(save), save) != ring::Progress::renaming) return;
    const os::FileIdentity there = store::file_at(files_, path);
    if (there.exists() && there != outcome.file) {
      throw Error(ErrorCode::busy_elsewhere, "rename to", path,
                  "another checkpointer has taken the name since the checkpoint process died");
    }
    return;
  }
  outcome.file = own;
  outcome.renamed_over = store::regular_file_at(files_, path);
  if (!orphaned_()) return;
  const os::FileIdentity there = store::file_at(files_, path);
  if (!there.exists() || may_be_replaced(save, there)) return;
  throw Error(ErrorCode::busy_elsewhere, "rename to", path,
              "this name has got another file since the checkpointer ended, as by a newer save");
}

bool FinalName::may_be_replaced(std::uint64_t save, const os::FileIdentity& file) const {
  const ring::Record& record = segment_.record(save);
  if (file == record.description.replaced || file == record.outcome.replaced) return true;
  // A save's outcome stays in its record until the consumer begins the one that uses it next, and
  // every save that has ended since this one was announced still has its own.
  for (std::uint64_t other = 0; other < segment_.geometry().record_count; ++other) {
    if (file == segment_.record(other).outcome.file) return true;
  }
  return false;
}

}  // namespace ckptring::drain
