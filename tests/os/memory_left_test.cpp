#include "os/memory_left.h"

#include <sys/sysinfo.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace ckptring::os {
namespace {

TEST(MemoryLeft, IsSomethingAndNotMoreThanTheMachineHas) {
  struct sysinfo info {};
  ASSERT_EQ(::sysinfo(&info), 0);
  const MemoryLeft left = memory_left();
  EXPECT_GT(left.bytes, 1u << 20);
  EXPECT_LE(left.bytes, std::uint64_t{info.totalram} * info.mem_unit);
}

TEST(MemoryLeft, SaysWhatItIsLimitedBy) {
  const MemoryLeft left = memory_left();
  EXPECT_TRUE(left.limited_by == "MemAvailable" || left.limited_by.starts_with("/sys/fs/cgroup"))
      << left.limited_by;
}

TEST(MemoryLeft, DoesNotPassTheSystemsOwnFigure) {
  const auto available = [] {
    std::ifstream in("/proc/meminfo");
    std::string key;
    std::uint64_t kib = 0;
    std::string unit;
    while (in >> key >> kib >> unit) {
      if (key == "MemAvailable:") return kib * 1024;
      if (unit != "kB") in.clear();
    }
    return std::uint64_t{0};
  };
  // The figure moves while others use the machine: what is left now lies near one of two looks.
  const std::uint64_t before = available();
  const MemoryLeft left = memory_left();
  const std::uint64_t after = available();
  ASSERT_GT(before, 0u);
  EXPECT_LE(left.bytes, std::max(before, after) + (2ull << 30));
}

}  // namespace
}  // namespace ckptring::os
