#include "ring/warm.h"

#include "base/log.h"
#include "base/system_words.h"
#include "os/clock.h"
#include "os/populate.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

namespace ckptring::ring {
namespace {

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

constexpr std::uint64_t kStep = 64ull << 20;

bool populate_pages(int fd, std::span<std::byte> bytes, std::uint64_t file_offset) noexcept {
  if (os::populate(bytes)) return true;
  if (errno != EINVAL) return false;
  // Before Linux 5.14: allocates the pages without mapping them.
  return ::fallocate(fd, 0, static_cast<off_t>(file_offset), static_cast<off_t>(bytes.size())) == 0;
}

/// Turns the whole 2 MiB pages at the beginning of `bytes` into huge ones; 0 if that fails. One
/// small page in each is enough: collapsing brings the rest as zeros, without a copy.
std::uint64_t make_huge(std::span<std::byte> bytes) noexcept {
  const std::size_t whole = bytes.size() / kHugePageBytes * kHugePageBytes;
  for (std::size_t at = 0; at < whole; at += kHugePageBytes) {
    if (!os::populate(bytes.subspan(at, kBlockAlignment))) return 0;
  }
  if (whole == 0 || ::madvise(bytes.data(), whole, MADV_COLLAPSE) != 0) return 0;
  return whole;
}

/// Advice of no bytes only asks whether it is known.
void log_missing_advice(const base::LogContext& log) {
  static base::FirstTime first_time;
  if (first_time()) {
    if (!os::populate({})) {
      log.info(
          "MADV_POPULATE_WRITE is missing (Linux 5.14): the ring's pages are allocated ahead "
          "and mapped when they are first used");
    }
    if (::madvise(nullptr, 0, MADV_COLLAPSE) != 0) {
      log.info(
          "MADV_COLLAPSE is missing (Linux 6.1): the ring has pages of 2 MiB only where "
          "shmem_enabled allows them");
    }
  }
}

}  // namespace

Warmer::Warmer(const Segment& segment, int rank)
    : thread_("ckptring-warm", os::OwnThread::Priority::background,
              [this, &segment, log = base::LogContext{rank}] { run(segment, log); }) {}

Warmer::~Warmer() { stop_.request_stop(); }

void Warmer::run(const Segment& segment, const base::LogContext& log) {
  /// Also after a failure: somebody may wait.
  struct AtEnd {
    Warmer& warmer;
    ~AtEnd() { warmer.note(UINT64_MAX); }
  };
  const AtEnd at_end{*this};
  const Result result = populate(stop_.get_token(), segment, log);
  log.info("ring populated: {} MiB, {} MiB of it in 2 MiB pages, in {:.2f} s",
           result.populated_bytes >> 20, result.huge_bytes >> 20, result.seconds);
}

void Warmer::wait(const std::stop_token& stop, std::uint64_t bytes) const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [&] { return populated_ >= bytes; });
}

void Warmer::note(std::uint64_t populated_bytes) {
  {
    const std::scoped_lock lock(mutex_);
    populated_ = populated_bytes;
  }
  changed_.notify_all();
}

Warmer::Result Warmer::populate(const std::stop_token& stop, const Segment& segment,
                                const base::LogContext& log) {
  const std::uint64_t began = os::monotonic_ns();
  const std::span<std::byte> blocks = segment.view().blocks();
  const std::uint64_t blocks_offset = segment.view().geometry().blocks_offset();
  Result result;
  log_missing_advice(log);
  // Where the system leaves it to advice, the first touch of a huge page brings all of it;
  // elsewhere collapsing does. Refusal of either only costs speed.
  (void)::madvise(blocks.data(), blocks.size(), MADV_HUGEPAGE);
  for (std::uint64_t at = 0; at < blocks.size() && !stop.stop_requested(); at += kStep) {
    const auto step = blocks.subspan(static_cast<std::size_t>(at),
                                     static_cast<std::size_t>(std::min(kStep, blocks.size() - at)));
    const std::uint64_t huge = make_huge(step);
    // What is not huge by now is populated page by page.
    const auto rest = step.subspan(static_cast<std::size_t>(huge));
    if (!rest.empty() && !populate_pages(segment.fd(), rest, blocks_offset + at + huge)) {
      log.warn("cannot populate the ring beyond {} MiB: {}; the first save will be slower",
               at >> 20, base::words_of_errno(errno));
      break;
    }
    result.populated_bytes += step.size();
    result.huge_bytes += huge;
    note(result.populated_bytes);
  }
  result.seconds = os::seconds_since(began);
  return result;
}

}  // namespace ckptring::ring
