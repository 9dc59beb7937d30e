#include "stage/stream_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ckptring::stage {
namespace {

TEST(StreamCopy, CopiesExactlyWhatItIsToldFromAndToAnyAddress) {
  constexpr std::size_t kRoom = 64;
  std::vector<std::byte> source(5000 + 2 * kRoom);
  std::uint32_t word = 1;
  for (std::byte& byte : source) byte = static_cast<std::byte>((word = word * 1664525 + 1) >> 24);
  std::vector<std::byte> target(source.size());
  for (const std::size_t size :
       {0, 1, 63, 64, 65, 1023, 1024, 1025, 1087, 1088, 1151, 4096, 4999}) {
    for (std::size_t to = 0; to < kRoom; to += size % 2 + 1) {
      const std::size_t from = (to * 7 + size) % kRoom;
      std::fill(target.begin(), target.end(), std::byte{0xA5});
      stream_copy(target.data() + to, source.data() + from, size);
      order_streamed();
      const auto begin = target.begin() + static_cast<std::ptrdiff_t>(to);
      const auto end = begin + static_cast<std::ptrdiff_t>(size);
      ASSERT_TRUE(std::equal(begin, end, source.begin() + static_cast<std::ptrdiff_t>(from)))
          << size << " bytes to " << to;
      const auto untouched = [](std::byte byte) { return byte == std::byte{0xA5}; };
      ASSERT_TRUE(std::all_of(target.begin(), begin, untouched)) << size << " bytes to " << to;
      ASSERT_TRUE(std::all_of(end, target.end(), untouched)) << size << " bytes to " << to;
    }
  }
}

TEST(StreamCopy, OfNothingMayHaveNoAddress) { stream_copy(nullptr, nullptr, 0); }

}  // namespace
}  // namespace ckptring::stage
