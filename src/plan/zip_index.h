// Finds the records of a zip archive and checks every field that says where they are.
#pragma once

#include "plan/byte_source.h"
#include "plan/pt_archive.h"

#include <string>
#include <vector>

namespace ckptring::plan {

/// The records in the order of the file, named without the top folder that they all share.
/// @throws Error damaged (naming the record and the field), unsupported_value (compressed or
///         encrypted records, several disks, not a zip archive but an older torch file)
std::vector<Record> read_zip_index(const ByteSource& source);

}  // namespace ckptring::plan
