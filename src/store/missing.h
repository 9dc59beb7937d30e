// What is said where something is not there.
#pragma once

#include "store/file_system.h"

#include <ckptring/error.h>

#include <string>

namespace ckptring::store {

/// The first part of `path` that is a symbolic link and leads to nothing; empty if none is one.
[[nodiscard]] std::string dangling_link_in(FileSystem& files, const std::string& path);

/// That `path` is not there. If it is for a link that leads to nothing, the error names that: it is
/// there, and whoever looks sees it.
[[nodiscard]] Error not_found(FileSystem& files, std::string operation, const std::string& path);

/// The error of a system call on `path`, with the words of `not_found` for ENOENT.
[[nodiscard]] Error error_at(FileSystem& files, int errno_value, std::string operation,
                             const std::string& path);

}  // namespace ckptring::store
