#include "store/direct_reads.h"

#include <ckptring/error.h>

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <string>

namespace ckptring::store {

DirectReads::DirectReads(const FileSource& source) : source_(source) {
  if (source.size() == 0) return;
  void* const mapping =
      ::mmap(nullptr, source.size(), PROT_NONE, MAP_SHARED | MAP_NORESERVE, source.fd(), 0);
  if (mapping == MAP_FAILED) return;
  mapping_ = mapping;
  // By this name it is the same file even if another one has its path by now.
  fd_ = open_file(source.files(), "/proc/self/fd/" + std::to_string(source.fd()),
                  O_RDONLY | O_DIRECT);
  // A hint only: what fails is read through the page cache.
  works_.store(static_cast<bool>(fd_), std::memory_order_relaxed);
}

DirectReads::~DirectReads() {
  if (mapping_ != nullptr) (void)::munmap(mapping_, source_.size());
}

bool DirectReads::cold(std::uint64_t offset, std::uint64_t size) const noexcept {
  if (!works_.load(std::memory_order_relaxed)) return false;
  for (const std::uint64_t at : {offset, offset + size - 1}) {
    unsigned char page = 1;
    auto* const address = static_cast<std::byte*>(mapping_) + at / kUnit * kUnit;
    // Who may not know is told that everything is there.
    if (source_.files().mincore(address, kUnit, &page) != 0) return false;
    if ((page & 1) == 0) return true;
  }
  return false;
}

std::size_t DirectReads::read(std::uint64_t offset, std::span<std::byte> window) const {
  std::size_t filled = 0;
  while (filled < window.size()) {
    const ssize_t got = uninterrupted([&] {
      return source_.files().pread(fd_.get(), window.data() + filled, window.size() - filled,
                                   offset + filled);
    });
    if (got < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) {
      works_.store(false, std::memory_order_relaxed);
      break;
    }
    if (got < 0) throw Error::from_errno(errno, "read", source_.path());
    filled += static_cast<std::size_t>(got);
    // The file ends here; or the transfer was cut short where the next one must not begin.
    if (got == 0 || filled % kUnit != 0) break;
  }
  return filled;
}

}  // namespace ckptring::store
