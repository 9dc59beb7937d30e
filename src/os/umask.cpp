#include "os/umask.h"

#include "os/read_file.h"

#include <sys/stat.h>

#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>

namespace ckptring::os {

std::optional<mode_t> umask_of_this_thread(const std::string& root) {
  constexpr std::string_view kKey = "\nUmask:\t";  // never the first line
  const std::string status = read_file(root + "/proc/thread-self/status").value_or("");
  const std::size_t key = status.find(kKey);
  if (key == std::string::npos) return std::nullopt;
  const char* const text = status.data() + key + kKey.size();
  const char* const end = status.data() + status.size();
  mode_t mask = 0;
  const auto [stop, error] = std::from_chars(text, end, mask, 8);
  if (error != std::errc{} || stop == end || *stop != '\n' || mask > 0777) return std::nullopt;
  return mask;
}

// umask(2) cannot fail.
ScopedUmask::ScopedUmask(mode_t mask) noexcept : before_(::umask(mask)) {}

ScopedUmask::~ScopedUmask() { (void)::umask(before_); }

}  // namespace ckptring::os
