// Looking at what has a name.
#pragma once

#include "os/file_identity.h"
#include "store/file_system.h"

#include <ckptring/error.h>

#include <string>

namespace ckptring::store {

/// The file that is named `path`, itself and not where a link leads; none if there is none.
/// @throws Error
[[nodiscard]] inline os::FileIdentity file_at(FileSystem& files, const std::string& path) {
  struct ::stat status {};
  if (files.stat(path, status, /*follow=*/false) == 0) return os::FileIdentity::of(status);
  if (errno != ENOENT) throw Error::from_errno(errno, "look at", path);
  return {};
}

/// The same of a regular file only.
/// @throws Error
[[nodiscard]] inline os::FileIdentity regular_file_at(FileSystem& files, const std::string& path) {
  struct ::stat status {};
  if (files.stat(path, status, /*follow=*/false) == 0) {
    return S_ISREG(status.st_mode) ? os::FileIdentity::of(status) : os::FileIdentity{};
  }
  if (errno != ENOENT) throw Error::from_errno(errno, "look at", path);
  return {};
}

}  // namespace ckptring::store
