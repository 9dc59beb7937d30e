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

}  // namespace ckptring::fuzz
