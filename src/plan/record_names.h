// The records of a `.pt` archive.
#pragma once

#include <string_view>

namespace ckptring::plan {

inline constexpr std::string_view kFolder = "archive";
inline constexpr std::string_view kVersionRecord = "version";
inline constexpr std::string_view kByteOrderRecord = "byteorder";
inline constexpr std::string_view kInfoRecord = "ckptring.json";
inline constexpr std::string_view kPickleRecord = "data.pkl";
/// Followed by the storage's key.
inline constexpr std::string_view kStoragePrefix = "data/";

}  // namespace ckptring::plan
