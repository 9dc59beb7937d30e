#include "support/direct_transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

namespace bench {
namespace {

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

struct Ring {
  explicit Ring(unsigned depth) {
    if (const int result = ::io_uring_queue_init(depth, &uring, 0); result < 0) {
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

DirectFile::DirectFile(std::string path, int flags)
    : path_(std::move(path)), fd_(::open(path_.c_str(), flags | O_DIRECT | O_CLOEXEC, 0666)) {
  if (fd_ < 0) fail(errno, "open " + path_);
}

DirectFile::~DirectFile() { (void)::close(fd_); }

void DirectFile::transfer(std::uint64_t bytes, std::size_t piece, unsigned depth,
                          const Prepare& prepare) const {
  Ring ring(depth);
  std::vector<std::size_t> sizes(depth);  // by slot
  std::vector<unsigned> free_slots;
  for (unsigned slot = depth; slot > 0; --slot) free_slots.push_back(slot - 1);
  std::uint64_t submitted = 0;
  while (submitted < bytes || free_slots.size() < depth) {
    while (submitted < bytes && !free_slots.empty()) {
      const unsigned slot = free_slots.back();
      free_slots.pop_back();
      sizes[slot] = static_cast<std::size_t>(std::min<std::uint64_t>(piece, bytes - submitted));
      ::io_uring_sqe* const entry = ::io_uring_get_sqe(&ring.uring);
      prepare(entry, slot, submitted, sizes[slot]);
      ::io_uring_sqe_set_data64(entry, slot);
      submitted += sizes[slot];
    }
    if (const int result = ::io_uring_submit_and_wait(&ring.uring, 1); result < 0) {
      fail(-result, "transfer " + path_);
    }
    ::io_uring_cqe* done = nullptr;
    while (::io_uring_peek_cqe(&ring.uring, &done) == 0) {
      const auto slot = static_cast<unsigned>(::io_uring_cqe_get_data64(done));
      if (done->res < 0) fail(-done->res, "transfer " + path_);
      if (static_cast<std::size_t>(done->res) != sizes[slot]) fail(EIO, "short: " + path_);
      free_slots.push_back(slot);
      ::io_uring_cqe_seen(&ring.uring, done);
    }
  }
}

}  // namespace bench
