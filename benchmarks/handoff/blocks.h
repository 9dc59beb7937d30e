// What is handed over: blocks, what they are filled with, and what is made of them at the other
// end.
#pragma once

#include <emmintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

/// What all channels of one comparison have in common.
struct Shape {
  std::size_t block_bytes;  ///< multiple of 4096; 0: blocks are handed over without being touched
  std::uint32_t slots;      ///< blocks that are under way at most, where the channel can say so
};

/// Channels that carry bytes rather than places need some even for an empty block.
[[nodiscard]] inline std::size_t carried_bytes(const Shape& shape) noexcept {
  return std::max(shape.block_bytes, sizeof(std::uint64_t));
}

/// For the processor: this thread waits for the other one.
inline void relax() noexcept { ::_mm_pause(); }

/// Fills blocks with the same bytes each time, the block's number in front. Plays the state that
/// is staged.
class BlockSource {
 public:
  explicit BlockSource(const Shape& shape)
      : block_bytes_(shape.block_bytes), words_(carried_bytes(shape) / sizeof(std::uint64_t)) {
    for (std::size_t i = 1; i < words_.size(); ++i) words_[i] = i;
  }

  /// Copies into a block. An empty one is not touched.
  void fill(std::span<std::byte> block) noexcept {
    if (block_bytes_ == 0) return;
    words_[0] = number_++;
    std::memcpy(block.data(), words_.data(), block_bytes_);
  }
  /// The same for channels that make the copy.
  std::span<const std::byte> next() noexcept {
    words_[0] = number_++;
    return std::as_bytes(std::span(words_));
  }

 private:
  std::size_t block_bytes_;
  std::vector<std::uint64_t> words_;
  std::uint64_t number_ = 0;
};

/// Reads every byte of a block, as a checksum does, and checks that it is whole and is the next.
class BlockReader {
 public:
  explicit BlockReader(const Shape& shape) {
    const std::uint64_t words = carried_bytes(shape) / sizeof(std::uint64_t);
    rest_ = words * (words - 1) / 2;
  }

  /// @throws std::runtime_error if it is not what the source filled in
  void read(std::span<const std::byte> block) {
    std::uint64_t sum = 0;
    for (std::size_t at = 0; at < block.size(); at += sizeof sum) {
      std::uint64_t word = 0;
      std::memcpy(&word, block.data() + at, sizeof word);
      sum += word;
    }
    if (sum != rest_ + number_) {
      throw std::runtime_error("block " + std::to_string(number_) + " did not arrive whole");
    }
    ++number_;
  }

 private:
  std::uint64_t rest_;  ///< the sum of all words but the first
  std::uint64_t number_ = 0;
};

}  // namespace bench
