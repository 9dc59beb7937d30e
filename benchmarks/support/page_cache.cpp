#include "support/page_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <vector>

namespace bench {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStep = 1u << 20;
constexpr int kAttempts = 5;

class File {
 public:
  explicit File(std::string path)
      : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail("open");
    struct ::stat status {};
    if (::fstat(fd_, &status) != 0) {
      const int error = errno;
      (void)::close(fd_);
      errno = error;
      fail("look at");
    }
    size_ = static_cast<std::size_t>(status.st_size);
  }
  ~File() { (void)::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] std::size_t pages() const noexcept { return (size_ + kPage - 1) / kPage; }

  [[nodiscard]] std::size_t cached_pages() const {
    if (size_ == 0) return 0;
    void* const mapping = ::mmap(nullptr, size_, PROT_NONE, MAP_SHARED, fd_, 0);
    if (mapping == MAP_FAILED) fail("map");
    std::vector<unsigned char> cached(pages());
    const int result = ::mincore(mapping, size_, cached.data());
    const int error = errno;
    (void)::munmap(mapping, size_);
    errno = error;
    if (result != 0) fail("look for the pages of");
    return static_cast<std::size_t>(
        std::ranges::count_if(cached, [](unsigned char page) { return (page & 1) != 0; }));
  }

  void drop() const {
    if (::fsync(fd_) != 0) fail("sync");
    if (const int error = ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED)) {
      errno = error;
      fail("drop");
    }
  }

  void read() const {
    std::vector<std::byte> buffer(kStep);
    for (::ssize_t offset = 0;;) {
      const ::ssize_t got = ::pread(fd_, buffer.data(), buffer.size(), offset);
      if (got < 0) fail("read");
      if (got == 0) return;
      offset += got;
    }
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw std::system_error(errno, std::generic_category(), fmt::format("{} {}", what, path_));
  }

  std::string path_;
  int fd_;
  std::size_t size_ = 0;
};

template <class Work>
void for_each_file(const std::string& path, const Work& work) {
  if (!std::filesystem::is_directory(path)) {
    work(path);
    return;
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) work(entry.path().string());
  }
}

}  // namespace

void evict(const std::string& path) {
  for_each_file(path, [](const std::string& name) {
    const File file(name);
    file.drop();
    if (file.cached_pages() == 0) return;
    std::ofstream("/proc/sys/vm/drop_caches") << '1';  // not everybody may; then it was in vain
    if (const std::size_t left = file.cached_pages(); left > 0) {
      throw std::runtime_error(
          fmt::format("{} of {} pages of {} stay in the page cache", left, file.pages(), name));
    }
  });
}

void warm_up(const std::string& path) {
  for_each_file(path, [](const std::string& name) {
    const File file(name);
    std::size_t cached = 0;
    // Now and then the kernel gives up a few pages while the others arrive.
    for (int attempt = 0; attempt < kAttempts && cached < file.pages(); ++attempt) {
      file.read();
      cached = file.cached_pages();
    }
    if (cached < file.pages()) {
      throw std::runtime_error(fmt::format("only {} of {} pages of {} stay in the page cache",
                                           cached, file.pages(), name));
    }
  });
}

}  // namespace bench
