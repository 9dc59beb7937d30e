#include "support/copy_baseline.h"

#include "support/stopwatch.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace bench {
namespace {

/// Small enough to be shared out evenly, and large enough that sharing costs nothing.
constexpr std::size_t kPiece = 4u << 20;

}  // namespace

CopyBaseline::CopyBaseline(std::span<const std::span<const std::byte>> sources,
                           std::span<std::byte> destination, unsigned threads)
    : threads_(std::max(threads, 1u)) {
  for (std::span<const std::byte> source : sources) {
    if (source.size() > destination.size()) {
      throw std::logic_error("the destination is too small for the sources");
    }
    while (!source.empty()) {
      const std::size_t size = std::min(source.size(), kPiece);
      pieces_.push_back({source.data(), destination.data(), size});
      source = source.subspan(size);
      destination = destination.subspan(size);
    }
  }
}

double CopyBaseline::run() const {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    // A counter that shares out work; joining the threads orders the copies.
    for (std::size_t i = 0; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces_.size();) {
      std::memcpy(pieces_[i].to, pieces_[i].from, pieces_[i].size);
    }
  };
  const Stopwatch watch;
  std::vector<std::jthread> others;
  for (unsigned i = 1; i < threads_; ++i) others.emplace_back(work);
  work();
  others.clear();
  return watch.seconds();
}

}  // namespace bench
