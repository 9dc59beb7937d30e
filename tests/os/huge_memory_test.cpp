#include "os/huge_memory.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>
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
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const ::pid_t child = ::fork();
  if (child == 0) {  // the kernel says it without a crash
    const bool there = ::write(ends[1], memory.bytes().data(), 1) == 1;
    ::_exit(!there && errno == EFAULT ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(::write(ends[1], memory.bytes().data(), 1), 1);
  (void)::close(ends[0]);
  (void)::close(ends[1]);
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
