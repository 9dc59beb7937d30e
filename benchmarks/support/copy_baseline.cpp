#include "support/copy_baseline.h"

#include "support/share_out.h"
#include "support/stopwatch.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

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
  const Stopwatch watch;
  share_out(pieces_.size(), threads_, [this](std::size_t i) {
    std::memcpy(pieces_[i].to, pieces_[i].from, pieces_[i].size);
  });
  return watch.seconds();
}

}  // namespace bench
