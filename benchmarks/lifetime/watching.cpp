#include "lifetime/watching.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace bench {

std::uint64_t written_by(::pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/io");
  for (std::string word; in >> word;) {
    if (word != "write_bytes:") continue;
    std::uint64_t bytes = 0;
    in >> bytes;
    return bytes;
  }
  return 0;
}

std::uint64_t bytes_written_by_ended_children() {
  ::rusage usage{};
  if (::getrusage(RUSAGE_CHILDREN, &usage) != 0) {
    throw std::system_error(errno, std::generic_category(), "getrusage");
  }
  return static_cast<std::uint64_t>(usage.ru_oublock) * 512;
}

LockWatch::LockWatch(const std::string& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().filename().string().front() != '.') continue;
    fd_ = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
  }
  if (fd_ < 0) throw std::runtime_error("no temporary in " + directory);
}

LockWatch::~LockWatch() { (void)::close(fd_); }

bool LockWatch::is_free() const {
  if (::flock(fd_, LOCK_SH | LOCK_NB) == 0) return ::flock(fd_, LOCK_UN) == 0;
  return false;
}

}  // namespace bench
