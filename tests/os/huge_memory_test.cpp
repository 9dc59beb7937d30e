#include "os/huge_memory.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cinttypes>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace ckptring::os {
namespace {

TEST(HugeMemory, HoldsAtLeastAsManyZerosAsAskedForFromAWholeHugePageOn) {
  const HugeMemory memory((3u << 20) + 1);
  EXPECT_GE(memory.bytes().size(), (3u << 20) + 1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.bytes().data()) % (2u << 20), 0u);
  EXPECT_TRUE(std::ranges::all_of(memory.bytes(), [](std::byte b) { return b == std::byte{0}; }));
  std::ranges::fill(memory.bytes(), std::byte{1});
}

/// The kernel's flags of the mapping that holds an address, see proc(5).
std::string flags_of(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(smaps, line);) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2) {
      const auto wanted = reinterpret_cast<std::uintptr_t>(address);
      here = begin <= wanted && wanted < end;
    }
    if (here && line.starts_with("VmFlags:")) return line + " ";
  }
  return "";
}

TEST(HugeMemory, IsNotCopiedToForkedChildren) {
  const HugeMemory memory(3u << 20);
  EXPECT_NE(flags_of(&memory.bytes().front()).find(" dc "), std::string::npos);
  EXPECT_NE(flags_of(&memory.bytes().back()).find(" dc "), std::string::npos);
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
