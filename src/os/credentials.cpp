#include "os/credentials.h"

#include <ckptring/error.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace ckptring::os {
namespace {

/// The system may be asked for the number only, and the groups may become more until they are
/// fetched.
std::vector<gid_t> groups_of_this_thread() {
  for (;;) {
    const int count = ::getgroups(0, nullptr);
    std::vector<gid_t> groups(static_cast<std::size_t>(std::max(count, 0)));
    const int got = count <= 0 ? count : ::getgroups(count, groups.data());
    if (got < 0 && errno == EINVAL) continue;
    if (got < 0) throw Error::from_errno(errno, "look up the groups of this process", "");
    groups.resize(static_cast<std::size_t>(got));
    std::sort(groups.begin(), groups.end());
    return groups;
  }
}

}  // namespace

Credentials Credentials::of_this_thread() {
  Credentials found{::geteuid(), ::getegid(), 0, 0, groups_of_this_thread()};
  // An id that nobody has: the call changes nothing, and tells the one that there is. A sandbox may
  // refuse it; then they are taken for the usual ones, which they are unless they were changed
  // before it came.
  constexpr auto kNobodys = static_cast<unsigned>(-1);
  const int files_user = ::setfsuid(kNobodys);
  const int files_group = ::setfsgid(kNobodys);
  found.files_user = files_user == -1 ? found.user : static_cast<uid_t>(files_user);
  found.files_group = files_group == -1 ? found.group : static_cast<gid_t>(files_group);
  return found;
}

std::string Credentials::in_words() const {
  std::string words = fmt::format("user {}, group {}", user, group);
  if (!can_be_handed_on()) {
    words += fmt::format(", for files user {}, group {}", files_user, files_group);
  }
  if (!groups.empty()) words += fmt::format(", groups {}", fmt::join(groups, " "));
  return words;
}

}  // namespace ckptring::os
