#include "support/work_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace bench {

WorkDirectory::WorkDirectory(const std::string& parent) {
  const char* const configured = std::getenv("TMPDIR");
  const std::string below = !parent.empty() ? parent : configured != nullptr ? configured : "/tmp";
  path_ = std::filesystem::absolute(below) / "ckptring-bench-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) {
    throw std::system_error(errno, std::generic_category(), "make a directory below " + below);
  }
}

WorkDirectory::~WorkDirectory() {
  std::error_code ignored;  // a destructor; whoever looks will see it
  std::filesystem::remove_all(path_, ignored);
}

void WorkDirectory::clear() const {
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    std::filesystem::remove_all(entry);
  }
  const int fd = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::syncfs(fd) == 0;
  const int error = errno;
  if (fd >= 0) (void)::close(fd);
  if (!synced) throw std::system_error(error, std::generic_category(), "sync " + path_);
}

}  // namespace bench
