// As whom a thread acts on files, and as whom a program that it starts does.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace ckptring::os {

/// Each thread has its own; the C library's setuid and its like change those of all threads, the
/// system calls beneath them, and setfsuid, only the caller's.
struct Credentials {
  uid_t user;        ///< effective
  gid_t group;       ///< effective
  uid_t files_user;  ///< as whom files are opened and made; a program that is started has `user`
  gid_t files_group;
  std::vector<gid_t> groups;  ///< supplementary, sorted

  /// @throws Error
  [[nodiscard]] static Credentials of_this_thread();
  /// Whether a program that is started with these opens and makes files as the starting thread
  /// does.
  [[nodiscard]] bool can_be_handed_on() const noexcept {
    return files_user == user && files_group == group;
  }
  /// "user 1000, group 100, groups 4 27".
  [[nodiscard]] std::string in_words() const;
  friend bool operator==(const Credentials&, const Credentials&) = default;
};

}  // namespace ckptring::os
