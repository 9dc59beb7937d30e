// What the page cache holds of a file: seen to, not assumed.
#pragma once

#include <string>

namespace bench {

/// Syncs `path`, or all files below it, and drops them from the page cache; the whole cache too
/// where that is not enough and allowed.
/// @throws std::runtime_error if a page of them stays, std::system_error
void evict(const std::string& path);

/// Reads `path`, or all files below it, into the page cache.
/// @throws std::runtime_error if not all of it stays there, std::system_error
void warm_up(const std::string& path);

}  // namespace bench
