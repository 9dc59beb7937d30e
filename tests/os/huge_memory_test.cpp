#include "os/huge_memory.h"

#include "support/mapping_flags.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace ckptring::os {
namespace {

TEST(HugeMemory, HoldsAtLeastAsManyZerosAsAskedForFromAWholeHugePageOn) {
  const HugeMemory memory((3u << 20) + 1);
  EXPECT_GE(memory.bytes().size(), (3u << 20) + 1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.bytes().data()) % (2u << 20), 0u);
  EXPECT_TRUE(std::ranges::all_of(memory.bytes(), [](std::byte b) { return b == std::byte{0}; }));
  std::ranges::fill(memory.bytes(), std::byte{1});
}

TEST(HugeMemory, IsNotCopiedToForkedChildren) {
  const HugeMemory memory(3u << 20);
  EXPECT_NE(test::mapping_flags(&memory.bytes().front()).find(" dc "), std::string::npos);
  EXPECT_NE(test::mapping_flags(&memory.bytes().back()).find(" dc "), std::string::npos);
}

TEST(HugeMemory, IsNoPartOfACoreDump) {
  const HugeMemory memory(3u << 20);
  EXPECT_NE(test::mapping_flags(&memory.bytes().front()).find(" dd "), std::string::npos);
  EXPECT_NE(test::mapping_flags(&memory.bytes().back()).find(" dd "), std::string::npos);
}

TEST(HugeMemory, MoreThanTheSystemCanEverGiveIsAnError) {
  try {
    const HugeMemory memory(std::size_t{1} << 60);
    FAIL() << "it was given";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  }
}

}  // namespace
}  // namespace ckptring::os
