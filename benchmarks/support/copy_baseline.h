// The least that staging can cost: a memcpy of the same bytes, by as many threads.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace bench {

class CopyBaseline {
 public:
  /// One source after the other into `destination`, which is warm and large enough. Both must
  /// outlive this.
  CopyBaseline(std::span<const std::span<const std::byte>> sources,
               std::span<std::byte> destination, unsigned threads);

  /// Seconds from the first byte to the last.
  double run() const;

 private:
  struct Piece {
    const std::byte* from;
    std::byte* to;
    std::size_t size;
  };
  std::vector<Piece> pieces_;
  unsigned threads_;
};

}  // namespace bench
