// What is fuzzed: the readers of files that come from anywhere. Each function takes any bytes, and
// returns; it aborts the process where a reader breaks a promise. Errors are what readers promise.
#pragma once

#include <cstddef>
#include <span>

namespace ckptring::fuzz {

/// Reads the bytes as a file: its index, its metadata, its state.
void read_archive(std::span<const std::byte> bytes);

/// Reads the bytes as the pickle of a file.
void read_any_pickle(std::span<const std::byte> bytes);

// With libtorch, through the library's public face: see load_targets.cpp.

/// Loads the bytes as a file: to the finished state, then into that state, then into what is left
/// of it after some changes.
void load_archive(std::span<const std::byte> bytes);

/// The same with the bytes as the pickle of a file that has some records.
void load_any_pickle(std::span<const std::byte> bytes);

}  // namespace ckptring::fuzz
