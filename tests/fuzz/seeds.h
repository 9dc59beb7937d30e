// Where fuzzing starts: small files of every kind that the readers know, made by the writers.
#pragma once

#include <cstddef>
#include <vector>

namespace ckptring::fuzz {

using Seeds = std::vector<std::vector<std::byte>>;

[[nodiscard]] Seeds archive_seeds();
/// The pickles of the archives, and values that no writer of ours makes.
[[nodiscard]] Seeds pickle_seeds();

}  // namespace ckptring::fuzz
