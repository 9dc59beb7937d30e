// Where a payload's bytes come from.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ckptring::stage {

/// One storage, as it lies in host memory. Owned by the caller until the save is staged.
struct Source {
  const std::byte* data;  ///< may be null if `size` is 0
  std::uint64_t size;     ///< bytes; equals the size of its payload
};

}  // namespace ckptring::stage
