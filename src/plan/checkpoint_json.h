// The record ckptring.json: what a checkpoint says about itself.
#pragma once

#include "plan/format.h"

#include <ckptring/checkpoints.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace ckptring::plan {

/// The format that this build writes, and the newest that it reads.
inline constexpr int kFormatVersion = 1;

/// Bytes that the record may have.
inline constexpr std::uint64_t kMaxJson = 16 * 1024 * 1024;
/// Levels of objects and arrays in it. It has 2 or 3; more are for what a newer format adds.
inline constexpr int kMaxJsonDepth = 100;

/// The same text for the same facts, always.
/// @throws Error unsupported_value for text that is not UTF-8, or too much of it
std::string to_json(const FileFacts& facts);

/// @param path of the file, for messages and for the result
/// @throws Error damaged, newer_format
CheckpointInfo from_json(std::string_view text, const std::string& path);

}  // namespace ckptring::plan
