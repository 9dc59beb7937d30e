#include "os/read_file.h"

#include "os/uninherited_fd.h"

#include <fcntl.h>

#include <array>
#include <cerrno>

namespace ckptring::os {

std::optional<std::string> read_file(const std::string& path) {
  const UninheritedFd file = open_uninherited(path, O_RDONLY);
  if (!file) return std::nullopt;
  std::string contents;
  std::array<char, 4096> part{};
  for (;;) {
    const ssize_t got = ::read(file.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) return contents;
    contents.append(part.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace ckptring::os
