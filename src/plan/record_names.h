// The records of a `.pt` archive.
#pragma once

#include <cstdint>
#include <string_view>

namespace ckptring::plan {

inline constexpr std::string_view kFolder = "archive";
inline constexpr std::string_view kVersionRecord = "version";
inline constexpr std::string_view kByteOrderRecord = "byteorder";
inline constexpr std::string_view kInfoRecord = "ckptring.json";
inline constexpr std::string_view kPickleRecord = "data.pkl";
/// Followed by the storage's key.
inline constexpr std::string_view kStoragePrefix = "data/";

/// Bytes that data.pkl may have. Reading it takes some thirty times as much memory at most, and its
/// values what value_memory.h allows.
inline constexpr std::uint64_t kMaxPickle = std::uint64_t{1} << 30;

}  // namespace ckptring::plan
