// A file as a ByteSource.
#pragma once

#include "plan/byte_source.h"

#include <memory>
#include <string>

namespace ckptring::store {

/// @throws Error not_found, permission, io, invalid_argument (a directory)
std::unique_ptr<plan::ByteSource> open_file_source(const std::string& path);

}  // namespace ckptring::store
