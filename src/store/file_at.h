// Looking at what has a name.
#pragma once

#include "os/file_identity.h"
#include "store/file_system.h"

#include <ckptring/error.h>

#include <string>

namespace ckptring::store {

enum class FileKind { any, regular };

/// The file that is named `path`, itself and not where a link leads; none if there is none, or none
/// of this kind.
/// @throws Error
[[nodiscard]] inline os::FileIdentity file_at(FileSystem& files, const std::string& path,
                                              FileKind kind = FileKind::any) {
  struct ::stat status {};
  if (files.stat(path, status, /*follow=*/false) != 0) {
    if (errno != ENOENT) throw Error::from_errno(errno, "look at", path);
    return {};
  }
  if (kind == FileKind::regular && !S_ISREG(status.st_mode)) return {};
  return os::FileIdentity::of(status);
}

/// @throws Error
[[nodiscard]] inline os::FileIdentity regular_file_at(FileSystem& files, const std::string& path) {
  return file_at(files, path, FileKind::regular);
}

}  // namespace ckptring::store
