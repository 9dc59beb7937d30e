// The names that a save gives to its files.
//
//   checkpoint_{rank}.pt                       the finished file, or another name that was asked
//   for .checkpoint_{rank}.pt.{32 hex digits}.tmp  the same file while it is being written
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ckptring::store {

[[nodiscard]] std::string final_name(int rank);

/// The rank of a finished file's name; nothing for any other name.
[[nodiscard]] std::optional<int> rank_of_final_name(std::string_view name);

/// Why a finished file cannot have this name, in words. Nothing if it can.
[[nodiscard]] std::optional<std::string> file_name_problem(std::string_view name);

/// A hidden name with a fresh 128-bit id.
/// @throws Error if the system has no randomness to give
[[nodiscard]] std::string new_temporary_name(std::string_view final_name);

/// The finished file's name that a temporary of this library is meant for; nothing for any other
/// name.
[[nodiscard]] std::optional<std::string_view> final_name_of_temporary(std::string_view name);

}  // namespace ckptring::store
