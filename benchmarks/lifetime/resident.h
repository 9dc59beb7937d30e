// What a trainer has in memory.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>

namespace bench {

/// Private memory in 4 KiB pages, all of it touched.
class Resident {
 public:
  /// @throws std::system_error
  explicit Resident(std::uint64_t bytes) : bytes_(bytes) {
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) fail("allocate");
    if (::madvise(memory_, bytes_, MADV_NOHUGEPAGE) != 0) {
      const int error = errno;
      (void)::munmap(memory_, bytes_);
      errno = error;
      fail("forbid huge pages");
    }
    std::memset(memory_, 1, bytes_);
  }
  ~Resident() { (void)::munmap(memory_, bytes_); }
  Resident(const Resident&) = delete;
  Resident& operator=(const Resident&) = delete;

 private:
  [[noreturn]] static void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
  }

  std::size_t bytes_;
  void* memory_ = nullptr;
};

}  // namespace bench
