#include "os/umask.h"

#include <sys/stat.h>

#include <charconv>
#include <fstream>
#include <string_view>

namespace ckptring::os {

std::optional<mode_t> umask_of_this_thread(const std::string& root) {
  constexpr std::string_view kKey = "Umask:\t";
  std::ifstream in(root + "/proc/thread-self/status");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(kKey)) continue;
    mode_t mask = 0;
    const char* const end = line.data() + line.size();
    const auto [stop, error] = std::from_chars(line.data() + kKey.size(), end, mask, 8);
    if (error == std::errc{} && stop == end && mask <= 0777) return mask;
    return std::nullopt;
  }
  return std::nullopt;
}

// umask(2) cannot fail.
ScopedUmask::ScopedUmask(mode_t mask) noexcept : before_(::umask(mask)) {}

ScopedUmask::~ScopedUmask() { (void)::umask(before_); }

}  // namespace ckptring::os
