// What this process has saved lately: so that it notices when another process saves to the same
// names.
//
// Two that take themselves for the same rank, or one job that was started twice, never meet at a
// temporary's lock if they save in turn; each replaces what the other has written, and everything
// looks well to both. But whoever comes back to what it has saved finds another file there. Nothing
// is written for that, and nothing is remembered beyond the process: one that is started anew, or
// in another's place, has nothing to find.
#pragma once

#include "base/log.h"
#include "os/file_identity.h"

#include <string>
#include <vector>

namespace ckptring::save {

/// A save of this process on its way to `path`: while one exists, whatever is found there may be
/// its file.
class SaveToName {
 public:
  explicit SaveToName(std::string path);
  /// Unless it is known as committed, nothing is known of what is there now.
  ~SaveToName();
  SaveToName(const SaveToName&) = delete;
  SaveToName& operator=(const SaveToName&) = delete;

  /// It has put this file there. The files under the newest 16 names are remembered.
  void committed(const os::FileIdentity& file);

 private:
  const std::string path_;
  bool committed_ = false;
};

/// A warning for each of them that somebody else has replaced since; then it is forgotten. They are
/// logged too. Looks at each name once.
std::vector<std::string> warnings_of_replaced(const base::LogContext& log);

}  // namespace ckptring::save
