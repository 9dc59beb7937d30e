// How large libtorch's dict gets is known without libtorch. tests/load has the comparison with it.
#include "plan/dict_table.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "support/colliding_ints.h"

namespace ckptring::plan {
namespace {

using test::colliding_int;

TEST(DictTable, IsHalfFullAtMost) {
  EXPECT_EQ(dict_slots({}), 4U);
  std::vector<std::uint64_t> hashes;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    hashes.push_back(i);
    EXPECT_GE(dict_slots(hashes).value(), 2 * hashes.size());
  }
  EXPECT_EQ(dict_slots(hashes), 2048U + 11);
}

TEST(DictTable, StaysSmallForKeysThatAnybodyHas) {
  std::mt19937_64 random(1);
  for (const std::size_t count : {1U, 10U, 500U, 20000U}) {
    std::vector<std::uint64_t> counted;
    std::vector<std::uint64_t> spaced;
    std::vector<std::uint64_t> noise;
    std::vector<std::uint64_t> texts;
    for (std::size_t i = 0; i < count; ++i) {
      counted.push_back(i);
      spaced.push_back(i << 32);
      noise.push_back(random());
      texts.push_back(dict_hash("model.layers." + std::to_string(i) + ".weight"));
    }
    for (const auto& hashes : {counted, spaced, noise, texts}) {
      EXPECT_LE(dict_slots(hashes).value(), 64 * count + 64);
    }
  }
}

TEST(DictTable, OfKeysThatWantOneSlotDoublesWithEachUntilItIsTooMuch) {
  std::vector<std::uint64_t> hashes;
  for (std::uint64_t i = 0; i < 14; ++i) hashes.push_back(colliding_int(i));
  EXPECT_EQ(dict_slots(std::span(hashes).first(8)), 256U + 8);
  EXPECT_EQ(dict_slots(std::span(hashes).first(12)), 4096U + 12);
  EXPECT_FALSE(dict_slots(hashes));
  for (std::uint64_t i = 14; i < 100; ++i) {
    hashes.push_back(colliding_int(i));
    EXPECT_FALSE(dict_slots(hashes)) << hashes.size();
  }
}

}  // namespace
}  // namespace ckptring::plan
