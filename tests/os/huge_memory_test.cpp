#include "os/huge_memory.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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

TEST(HugeMemory, IsNotTheForkedChilds) {
  const HugeMemory memory(1);
  memory.bytes()[0] = std::byte{1};
  unsigned char page = 0;
  const ::pid_t child = ::fork();
  if (child == 0) {
    const int result = ::mincore(memory.bytes().data(), 1, &page);
    ::_exit(result != 0 && errno == ENOMEM ? 0 : 1);  // nothing is mapped there
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(::mincore(memory.bytes().data(), 1, &page), 0);
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
