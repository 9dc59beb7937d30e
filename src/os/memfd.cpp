#include "os/memfd.h"

#include "os/new_fd.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>

namespace ckptring::os {
namespace {

// Linux 6.3; where vm.memfd_noexec is 2, nothing else is allowed.
constexpr unsigned kNoExecSeal = 0x0008;

UniqueFd make_unsized(const char* name) {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  UniqueFd fd = new_fd([&] { return ::memfd_create(name, kFlags | kNoExecSeal); });
  if (!fd && errno == EINVAL) fd = new_fd([&] { return ::memfd_create(name, kFlags); });
  return fd;
}

/// The kernel's answer would be a signal, which kills.
bool exceeds_file_size_limit(std::uint64_t bytes) {
  ::rlimit limit{};
  return ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
         bytes > limit.rlim_cur;
}

}  // namespace

UniqueFd make_memfd(const char* name, std::uint64_t bytes) {
  UniqueFd fd = make_unsized(name);
  if (!fd) throw Error::from_errno(errno, "create shared memory", name);
  // Who may open it through /proc is a question of its mode, too.
  if (::fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0) {
    throw Error::from_errno(errno, "keep to this user the shared memory", name);
  }
  if (exceeds_file_size_limit(bytes)) {
    throw Error(ErrorCode::out_of_memory, "size shared memory", name,
                "it would be larger than a file of this process may be (RLIMIT_FSIZE, ulimit -f)",
                EFBIG);
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    throw Error::from_errno(errno, "size shared memory", name);
  }
  // A peer that maps it must never meet SIGBUS.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    throw Error::from_errno(errno, "seal shared memory", name);
  }
  return fd;
}

}  // namespace ckptring::os
