#include "ring/layout.h"

#include "ring/ring_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

namespace ckptring::ring::test {
namespace {

TEST(Geometry, AcceptsWhatWorks) {
  EXPECT_EQ(kSmall.complaint(), "");
  EXPECT_EQ((Geometry{4ull << 20, 400, 2, 64ull << 20}.complaint()), "");
  EXPECT_EQ((Geometry{1ull << 30, 65536, 1024, 64}.complaint()), "");
}

TEST(Geometry, SaysWhatIsWrong) {
  const auto complains = [](const Geometry& geometry, const std::string& about) {
    return geometry.complaint().find(about) != std::string::npos;
  };
  constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();
  EXPECT_TRUE(complains({0, 4, 2, 64}, "block size"));
  EXPECT_TRUE(complains({4095, 4, 2, 64}, "is 4095"));
  EXPECT_TRUE(complains({4096 + 512, 4, 2, 64}, "multiple of 4096"));
  EXPECT_TRUE(complains({2ull << 30, 4, 2, 64}, "1 GiB"));
  EXPECT_TRUE(complains({4096, 0, 2, 64}, "2 blocks"));
  EXPECT_TRUE(complains({4096, 1, 2, 64}, "2 blocks"));
  EXPECT_TRUE(complains({4096, kHuge, 2, 64}, "64 TiB"));
  EXPECT_TRUE(complains({1ull << 30, kHuge / 2, 2, 64}, "64 TiB"));
  EXPECT_TRUE(complains({4096, 4, 0, 64}, "save records"));
  EXPECT_TRUE(complains({4096, 4, 1, 64}, "save records"));
  EXPECT_TRUE(complains({4096, 4, 1025, 64}, "save records"));
  EXPECT_TRUE(complains({4096, 4, kHuge, 64}, "save records"));
  EXPECT_TRUE(complains({4096, 4, 2, 0}, "plan area"));
  EXPECT_TRUE(complains({4096, 4, 2, 63}, "is 63"));
  EXPECT_TRUE(complains({4096, 4, 2, kHuge - 63}, "plan area"));
}

TEST(Geometry, LaysSectionsOutInOrderWithoutOverlap) {
  for (const Geometry& geometry :
       {kSmall, Geometry{4ull << 20, 400, 9, 64ull << 20}, Geometry{12288, 3, 2, 64}}) {
    EXPECT_GE(geometry.slots_offset(), sizeof(Header) + 3 * kCacheLine);
    EXPECT_EQ(geometry.slots_offset() % kCacheLine, 0u);
    EXPECT_GE(geometry.records_offset(),
              geometry.slots_offset() + geometry.slot_count * sizeof(Slot));
    EXPECT_EQ(geometry.records_offset() % kCacheLine, 0u);
    EXPECT_GE(geometry.plan_offset(),
              geometry.records_offset() + geometry.record_count * sizeof(Record));
    EXPECT_EQ(geometry.plan_offset() % kCacheLine, 0u);
    EXPECT_GE(geometry.blocks_offset(), geometry.plan_offset() + geometry.plan_bytes);
    EXPECT_EQ(geometry.blocks_offset() % kHugePageBytes, 0u);
    EXPECT_EQ(geometry.total_bytes(),
              geometry.blocks_offset() + geometry.slot_count * geometry.block_bytes);
  }
}

TEST(Layout, NoCacheLineHasTwoWriters) {
  EXPECT_EQ(sizeof(ProducerLine) % kCacheLine, 0u);
  EXPECT_EQ(sizeof(SupervisorLine) % kCacheLine, 0u);
  EXPECT_EQ(sizeof(ConsumerLine) % kCacheLine, 0u);
  EXPECT_EQ(sizeof(Slot), kCacheLine);
  EXPECT_EQ(offsetof(Record, consumer_word) % kCacheLine, 0u);
  EXPECT_EQ(sizeof(Record) % kCacheLine, 0u);
}

TEST(Word, KeepsNumberAndStateTogether) {
  constexpr Word<Progress> kWord{(1ull << 56) - 1, Progress::aborted};
  constexpr auto kBack = Word<Progress>::unpack(kWord.packed());
  EXPECT_EQ(kBack.save, kWord.save);
  EXPECT_EQ(kBack.state, Progress::aborted);
  EXPECT_EQ(Word<Intent>::unpack(0).save, 0u);
  EXPECT_EQ(Word<Intent>::unpack(0).state, Intent::none);
}

TEST(Word, OnlyOutcomesAreTerminal) {
  for (const Progress progress :
       {Progress::none, Progress::open, Progress::syncing, Progress::renaming}) {
    EXPECT_FALSE(is_terminal(progress));
  }
  for (const Progress progress : {Progress::committed, Progress::failed, Progress::aborted}) {
    EXPECT_TRUE(is_terminal(progress));
  }
}

TEST(Text, IsCutToItsFieldAndAlwaysEnds) {
  std::array<char, 5> field{'x', 'x', 'x', 'x', 'x'};
  copy_text(field.data(), field.size(), "ab");
  EXPECT_EQ(text_of(field.data(), field.size()), "ab");
  copy_text(field.data(), field.size(), "abcdefgh");
  EXPECT_EQ(text_of(field.data(), field.size()), "abcd");
  copy_text(field.data(), field.size(), "");
  EXPECT_EQ(text_of(field.data(), field.size()), "");
}

TEST(Text, IsReadFromAFieldWithoutAnEnd) {
  const std::array<char, 3> field{'a', 'b', 'c'};
  EXPECT_EQ(text_of(field.data(), field.size()), "abc");
}

}  // namespace
}  // namespace ckptring::ring::test
