#include "plan/identity_table.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace ckptring::plan {
namespace {

const void* address(std::uint64_t number) {
  return reinterpret_cast<const void*>(0x7f0000000000u + number * 64);
}

void expect_numbered(IdentityTable& table, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto found = table.find_or_add(address(i));
    ASSERT_TRUE(found.is_new) << i;
    ASSERT_EQ(found.number, i);
    ASSERT_FALSE(table.find_or_add(address(i / 2)).is_new);
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto found = table.find_or_add(address(i));
    ASSERT_FALSE(found.is_new) << i;
    ASSERT_EQ(found.number, i);
  }
  ASSERT_EQ(table.size(), count);
}

TEST(IdentityTable, KeepsNumbersWhileItGrows) {
  IdentityTable table;
  expect_numbered(table, 100'000);
}

TEST(IdentityTable, IsTheSameWithRoomMadeBefore) {
  IdentityTable table;
  table.expect(3);
  table.expect(50'000);
  expect_numbered(table, 60'000);
}

TEST(IdentityTable, ForgetsWhatItIsCleared) {
  IdentityTable table;
  for (const std::uint64_t count : {1'000, 10, 5'000}) {
    expect_numbered(table, count);
    const std::size_t bytes = table.bytes();
    table.clear();
    EXPECT_EQ(table.size(), 0u);
    EXPECT_EQ(table.bytes(), bytes);
  }
}

TEST(IdentityTable, TellsTheNullAddressFromNone) {
  IdentityTable table;
  EXPECT_TRUE(table.find_or_add(nullptr).is_new);
  EXPECT_FALSE(table.find_or_add(nullptr).is_new);
}

}  // namespace
}  // namespace ckptring::plan
