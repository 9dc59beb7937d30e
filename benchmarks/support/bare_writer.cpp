#include "support/bare_writer.h"

#include "support/stopwatch.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace bench {
namespace {

constexpr unsigned kDepth = 8;
constexpr std::size_t kPiece = 4u << 20;

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

struct File {
  explicit File(const std::string& path)
      : fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0666)) {
    if (fd < 0) fail(errno, "create " + path);
  }
  ~File() { (void)::close(fd); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const int fd;
};

struct Ring {
  Ring() {
    if (const int result = ::io_uring_queue_init(kDepth, &uring, 0); result < 0) {
      fail(-result, "set up io_uring");
    }
  }
  // Waits for what is in flight.
  ~Ring() { ::io_uring_queue_exit(&uring); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ::io_uring uring{};
};

}  // namespace

double write_bare(const std::string& path, std::span<const std::byte> memory) {
  const Stopwatch watch;
  const File file(path);
  if (::fallocate(file.fd, 0, 0, static_cast<off_t>(memory.size())) != 0) {
    fail(errno, "reserve " + path);
  }
  Ring ring;
  std::size_t submitted = 0;
  std::size_t in_flight = 0;
  while (submitted < memory.size() || in_flight > 0) {
    for (; submitted < memory.size() && in_flight < kDepth; ++in_flight) {
      const std::size_t size = std::min(kPiece, memory.size() - submitted);
      ::io_uring_sqe* const entry = ::io_uring_get_sqe(&ring.uring);
      ::io_uring_prep_write(entry, file.fd, memory.data() + submitted, static_cast<unsigned>(size),
                            submitted);
      ::io_uring_sqe_set_data64(entry, size);
      submitted += size;
    }
    if (const int result = ::io_uring_submit_and_wait(&ring.uring, 1); result < 0) {
      fail(-result, "write " + path);
    }
    ::io_uring_cqe* done = nullptr;
    for (; ::io_uring_peek_cqe(&ring.uring, &done) == 0; --in_flight) {
      if (done->res < 0) fail(-done->res, "write " + path);
      // Does not happen on a file that was reserved; then there is nothing to compare with.
      if (static_cast<std::size_t>(done->res) != ::io_uring_cqe_get_data64(done)) {
        fail(EIO, "short write to " + path);
      }
      ::io_uring_cqe_seen(&ring.uring, done);
    }
  }
  if (::fsync(file.fd) != 0) fail(errno, "sync " + path);
  return watch.seconds();
}

}  // namespace bench
