#include "support/bare_reader.h"

#include "support/direct_transfer.h"
#include "support/stopwatch.h"

#include <fcntl.h>

#include <stdexcept>

namespace bench {
namespace {

constexpr unsigned kDepth = 8;
constexpr std::size_t kPiece = kBareReaderWindow / kDepth;

}  // namespace

double read_bare(const std::string& path, std::uint64_t bytes, std::span<std::byte> window) {
  if (window.size() < kBareReaderWindow) throw std::logic_error("the window is too small");
  const Stopwatch watch;
  const DirectFile file(path, O_RDONLY);
  file.transfer(bytes, kPiece, kDepth,
                [&](::io_uring_sqe* entry, unsigned slot, std::uint64_t offset, std::size_t size) {
                  ::io_uring_prep_read(entry, file.fd(), window.data() + slot * kPiece,
                                       static_cast<unsigned>(size), offset);
                });
  return watch.seconds();
}

}  // namespace bench
