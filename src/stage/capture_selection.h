// Which parts of a state are captured: copied before `save` returns, so that they may change at
// once. A function of the structure alone (places, sizes, declarations), so that whoever saves the
// same structure again can rely on it.
#pragma once

#include "stage/source.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace ckptring::stage {

/// A storage of at most so many bytes is small.
inline constexpr std::uint64_t kSmallStorageBytes = 64ull << 10;

/// Bytes at each place: on the host, and on every device.
struct CaptureLimits {
  std::uint64_t small_bytes;     ///< of small storages, in all
  std::uint64_t volatile_bytes;  ///< of storages that are declared volatile, in all
};

/// What is captured at one place.
struct CaptureAt {
  int place;
  std::vector<std::uint32_t> sources;  ///< rising
  std::uint64_t bytes = 0;             ///< of all of them
};

/// All storages that are declared volatile, and of the others the small ones: the smallest first,
/// of equal ones those that come first, until the next one would exceed the limit. Empty ones are
/// left out, and so are places where nothing is captured.
/// @param path, name_of  for messages
/// @throws Error unsupported_value naming the key with which those declared volatile exceed theirs
std::vector<CaptureAt> select_captured(
    std::span<const Source> sources, const CaptureLimits& limits, const std::string& path,
    const std::function<std::string(std::uint32_t source)>& name_of);

}  // namespace ckptring::stage
