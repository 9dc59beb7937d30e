#include "os/memory_left.h"

#include "support/temporary_directory.h"

#include <sys/sysinfo.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
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

/// A machine's files below a directory.
class FakeMachine : public ::testing::Test {
 protected:
  FakeMachine() {
    write("/proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n");
  }
  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_.path() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  /// A memory cgroup of version 2: its limit in MiB or "max", what it uses, what it could drop.
  void group(const std::string& path, const std::string& limit, int used_mib, int droppable_mib) {
    const std::string folder = "/sys/fs/cgroup" + path;
    write(folder + "/memory.max", limit == "max" ? limit : limit + "000000");
    write(folder + "/memory.current", std::to_string(used_mib) + "000000\n");
    write(folder + "/memory.stat",
          "anon 5\ninactive_file " + std::to_string(droppable_mib) + "000000\nfile 7\n");
  }

  test::TemporaryDirectory root_;
};

TEST_F(FakeMachine, WithoutCgroupsLeavesWhatIsAvailable) {
  const MemoryLeft left = memory_left(root_.path());
  EXPECT_EQ(left.bytes, 8ull << 30);
  EXPECT_EQ(left.limited_by, "MemAvailable");
}

TEST_F(FakeMachine, LeavesWhatTheTightestGroupOnTheWayUpLeaves) {
  write("/proc/self/cgroup", "0::/job/rank\n");
  group("/job/rank", "max", 100, 0);
  group("/job", "1000", 900, 300);  // 600 in use that it could not drop
  group("", "4000", 1000, 0);
  MemoryLeft left = memory_left(root_.path());
  EXPECT_EQ(left.bytes, 400'000'000u);
  EXPECT_EQ(left.limited_by, root_.path() + "/sys/fs/cgroup/job");
  group("/job/rank", "200", 100, 0);
  left = memory_left(root_.path());
  EXPECT_EQ(left.bytes, 100'000'000u);
  EXPECT_EQ(left.limited_by, root_.path() + "/sys/fs/cgroup/job/rank");
}

TEST_F(FakeMachine, LeavesNothingInAGroupThatIsFull) {
  write("/proc/self/cgroup", "0::/job\n");
  group("/job", "100", 150, 10);
  EXPECT_EQ(memory_left(root_.path()).bytes, 0u);
}

TEST_F(FakeMachine, KnowsTheFirstVersionOfCgroups) {
  write("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/job\n1:cpu,cpuacct:/other\n0::/\n");
  const std::string folder = "/sys/fs/cgroup/memory/job";
  write(folder + "/memory.limit_in_bytes", "3000000\n");
  write(folder + "/memory.usage_in_bytes", "2000000\n");
  write(folder + "/memory.stat", "inactive_file 5\ntotal_inactive_file 500000\n");
  const MemoryLeft left = memory_left(root_.path());
  EXPECT_EQ(left.bytes, 1'500'000u);
  EXPECT_EQ(left.limited_by, root_.path() + folder);
}

}  // namespace
}  // namespace ckptring::os
