#include "os/populate.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace ckptring::os {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPages = 16;

std::size_t resident_pages(void* memory) {
  std::array<unsigned char, kPages> states{};
  EXPECT_EQ(::mincore(memory, kPages * kPage, states.data()), 0);
  return static_cast<std::size_t>(
      std::ranges::count_if(states, [](unsigned char state) { return (state & 1) != 0; }));
}

TEST(Populate, BringsThePagesThatAreMissingAndLeavesTheOthersAsTheyAre) {
  void* const memory =
      ::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const std::span bytes(static_cast<std::byte*>(memory), kPages * kPage);
  bytes[3 * kPage] = std::byte{7};
  EXPECT_EQ(resident_pages(memory), 1u);
  EXPECT_TRUE(populate(bytes));
  EXPECT_EQ(resident_pages(memory), kPages);
  EXPECT_EQ(bytes[3 * kPage], std::byte{7});
  ASSERT_EQ(::munmap(memory, kPages * kPage), 0);
  EXPECT_FALSE(populate(bytes));
}

}  // namespace
}  // namespace ckptring::os
