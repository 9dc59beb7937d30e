#include "ring/warm.h"

#include "base/log.h"
#include "os/clock.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ckptring::ring {
namespace {

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

constexpr std::uint64_t kStep = 64ull << 20;

bool populate(int fd, std::span<std::byte> bytes, std::uint64_t file_offset) noexcept {
  if (::madvise(bytes.data(), bytes.size(), MADV_POPULATE_WRITE) == 0) return true;
  if (errno != EINVAL) return false;
  // Before Linux 5.14: allocates the pages without mapping them.
  return ::fallocate(fd, 0, static_cast<off_t>(file_offset), static_cast<off_t>(bytes.size())) == 0;
}

}  // namespace

Warmer::Warmer(const Segment& segment, int rank)
    : thread_([this, fd = segment.fd(), view = segment.view(), rank] { run(fd, view, rank); }) {}

Warmer::~Warmer() {
  stop_.store(true, std::memory_order_relaxed);  // a hint; joining orders everything
  thread_.join();
}

void Warmer::run(int fd, SegmentView segment, int rank) {
  (void)::pthread_setname_np(::pthread_self(), "ckptring-warm");
  const base::LogContext log{rank};
  const std::uint64_t began = os::monotonic_ns();
  const std::span<std::byte> blocks = segment.blocks();
  const std::uint64_t blocks_offset = segment.geometry().blocks_offset();
  Result result;
  // Where the system leaves it to advice, pages come huge at once; elsewhere collapsing makes
  // them so. Refusal of either only costs speed.
  (void)::madvise(blocks.data(), blocks.size(), MADV_HUGEPAGE);
  for (std::uint64_t at = 0; at < blocks.size() && !stop_.load(std::memory_order_relaxed);
       at += kStep) {
    const auto step = blocks.subspan(static_cast<std::size_t>(at),
                                     static_cast<std::size_t>(std::min(kStep, blocks.size() - at)));
    if (!populate(fd, step, blocks_offset + at)) {
      log.warn("cannot populate the ring beyond {} MiB: {}; the first save will be slower",
               at >> 20, std::strerror(errno));
      break;
    }
    result.populated_bytes += step.size();
    const std::uint64_t whole = step.size() / kHugePageBytes * kHugePageBytes;
    if (whole != 0 && ::madvise(step.data(), whole, MADV_COLLAPSE) == 0) {
      result.huge_bytes += whole;
    }
  }
  result.seconds = os::seconds_since(began);
  log.info("ring populated: {} MiB, {} MiB of it in 2 MiB pages, in {:.2f} s",
           result.populated_bytes >> 20, result.huge_bytes >> 20, result.seconds);
  done_.store(true, std::memory_order_release);
  done_.notify_all();
}

}  // namespace ckptring::ring
