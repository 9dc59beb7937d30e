#include "support/bare_writer.h"

#include "support/direct_transfer.h"
#include "support/stopwatch.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace bench {
namespace {

constexpr unsigned kDepth = 8;
constexpr std::size_t kPiece = 4u << 20;

}  // namespace

double write_bare(const std::string& path, std::span<const std::byte> memory) {
  const auto fail = [&path](const char* what) {
    throw std::system_error(errno, std::generic_category(), what + path);
  };
  const Stopwatch watch;
  const DirectFile file(path, O_WRONLY | O_CREAT | O_EXCL);
  if (::fallocate(file.fd(), 0, 0, static_cast<off_t>(memory.size())) != 0) fail("reserve ");
  file.transfer(memory.size(), kPiece, kDepth,
                [&](::io_uring_sqe* entry, unsigned, std::uint64_t offset, std::size_t size) {
                  ::io_uring_prep_write(entry, file.fd(), memory.data() + offset,
                                        static_cast<unsigned>(size), offset);
                });
  if (::fsync(file.fd()) != 0) fail("sync ");
  return watch.seconds();
}

}  // namespace bench
