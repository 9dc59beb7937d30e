// Which permissions a process leaves out of what it makes.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace ckptring::os {

/// Of the calling thread, which shares it with its process as a rule. Read from /proc: umask(2)
/// would have to change it, for all threads, to tell it. None where there is no /proc.
/// @param root where /proc is found
[[nodiscard]] std::optional<mode_t> umask_of_this_thread(const std::string& root = "");

/// While one exists, this process's umask is another one; for processes of one's own only.
class ScopedUmask {
 public:
  explicit ScopedUmask(mode_t mask) noexcept;
  ~ScopedUmask();
  ScopedUmask(const ScopedUmask&) = delete;
  ScopedUmask& operator=(const ScopedUmask&) = delete;

 private:
  mode_t before_;
};

}  // namespace ckptring::os
