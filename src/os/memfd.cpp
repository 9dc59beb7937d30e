#include "os/memfd.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>

namespace ckptring::os {

UniqueFd make_memfd(const char* name, std::uint64_t bytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) throw Error::from_errno(errno, "create shared memory", name);
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
