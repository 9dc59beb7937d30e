#include "support/warm_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace bench {
namespace {

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

constexpr std::size_t kHugePage = 2u << 20;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

WarmMemory::WarmMemory(std::uint64_t bytes) {
  const std::size_t size = (static_cast<std::size_t>(bytes) + kHugePage - 1) & ~(kHugePage - 1);
  void* const reserved =
      ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED) fail("reserve addresses");
  mapping_ = {static_cast<std::byte*>(reserved), size + kHugePage};
  const auto address = reinterpret_cast<std::uintptr_t>(reserved);
  bytes_ = mapping_.subspan(((address + kHugePage - 1) & ~(kHugePage - 1)) - address, size);

  const int fd = ::memfd_create("bench-warm", MFD_CLOEXEC);
  const bool mapped = fd >= 0 && ::ftruncate(fd, static_cast<off_t>(size)) == 0 &&
                      ::mmap(bytes_.data(), size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                             fd, 0) != MAP_FAILED;
  const int error = errno;
  if (fd >= 0) (void)::close(fd);  // the mapping keeps the memory
  if (!mapped) {
    (void)::munmap(mapping_.data(), mapping_.size());
    errno = error;
    fail("make warm memory");
  }
  (void)::madvise(bytes_.data(), size, MADV_HUGEPAGE);
  for (std::size_t at = 0; at < size; at += kHugePage) {
    // Collapsing wants one page to begin with; what is missing comes zeroed and huge.
    bytes_[at] = std::byte{0};
    if (::madvise(bytes_.data() + at, kHugePage, MADV_COLLAPSE) == 0) huge_bytes_ += kHugePage;
  }
  std::memset(bytes_.data(), 0x5a, size);
}

WarmMemory::~WarmMemory() { (void)::munmap(mapping_.data(), mapping_.size()); }

}  // namespace bench
