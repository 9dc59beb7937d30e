// Where a payload's bytes come from.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ckptring::stage {

/// A place of memory: the host, or the number of a CUDA device.
inline constexpr int kHost = -1;

/// One storage, as it lies in memory. Owned by the caller until the save is staged.
struct Source {
  const std::byte* data;  ///< may be null if `size` is 0; on a device only the device may read it
  std::uint64_t size;     ///< bytes; equals the size of its payload
  int place = kHost;
  bool is_volatile = false;  ///< declared so: it may be written to as soon as `save` has returned
};

}  // namespace ckptring::stage
