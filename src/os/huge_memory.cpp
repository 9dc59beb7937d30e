#include "os/huge_memory.h"

#include "base/align.h"

#include <ckptring/error.h>

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <string>

namespace ckptring::os {
namespace {

constexpr std::size_t kHugePage = 2u << 20;

}  // namespace

HugeMemory::HugeMemory(std::size_t bytes) {
  const std::size_t size = base::align_up(bytes, kHugePage);
  void* const mapping = ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    throw Error::from_errno(errno, "allocate " + std::to_string(size >> 20) + " MiB of memory", "");
  }
  mapping_ = {static_cast<std::byte*>(mapping), size + kHugePage};
  const auto address = reinterpret_cast<std::uintptr_t>(mapping);
  bytes_ = mapping_.subspan(base::align_up(address, kHugePage) - address, size);
  (void)::madvise(bytes_.data(), size, MADV_HUGEPAGE);  // refused: only slower
  // Of anonymous memory these are not refused.
  (void)::madvise(bytes_.data(), size, MADV_DONTFORK);
  (void)::madvise(bytes_.data(), size, MADV_DONTDUMP);
}

HugeMemory::~HugeMemory() { (void)::munmap(mapping_.data(), mapping_.size()); }

}  // namespace ckptring::os
