#include "os/populate.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ckptring::os {

bool populate(std::span<std::byte> memory) noexcept {
  return ::madvise(memory.data(), memory.size(), MADV_POPULATE_WRITE) == 0;
}

}  // namespace ckptring::os
