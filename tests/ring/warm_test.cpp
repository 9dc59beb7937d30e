#include "ring/warm.h"

#include "base/align.h"
#include "ring/ring_memory.h"
#include "support/forbid_calls.h"
#include "support/log_lines.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>
#include <string>

namespace ckptring::ring::test {
namespace {

constexpr Geometry kWarmed{1ull << 20, 70, 2, 64};  // more than one step of 64 MiB

std::uint64_t allocated_bytes(int fd) {
  struct ::stat status {};
  EXPECT_EQ(::fstat(fd, &status), 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

TEST(Warmer, AllocatesEveryBlock) {
  const Segment segment = Segment::create(kWarmed, {});
  // One huge page for the header, where the system makes them of everything.
  ASSERT_LE(allocated_bytes(segment.fd()), kHugePageBytes);
  Warmer warmer(segment, 0);
  warmer.wait();
  EXPECT_GE(allocated_bytes(segment.fd()), kWarmed.slot_count * kWarmed.block_bytes);
}

TEST(Warmer, NeverWritesOverWhatIsStagedMeanwhile) {
  const Segment segment = Segment::create(kWarmed, {});
  const auto blocks = segment.view().blocks();
  const auto pattern = [](std::uint64_t lap) { return static_cast<int>(lap % 251 + 1); };
  Warmer warmer(segment, 0);
  for (std::uint64_t at = 0; at < kWarmed.slot_count; ++at) {
    std::memset(segment.view().block(at).data(), pattern(at), kWarmed.block_bytes);
  }
  warmer.wait();
  for (std::uint64_t at = 0; at < kWarmed.slot_count; ++at) {
    const auto block = segment.view().block(at);
    EXPECT_TRUE(
        std::all_of(block.begin(), block.end(),
                    [&](std::byte byte) { return byte == static_cast<std::byte>(pattern(at)); }))
        << "block " << at;
  }
  EXPECT_EQ(blocks.size(), kWarmed.slot_count * kWarmed.block_bytes);
}

TEST(Warmer, EndsEarlyWithItsOwner) {
  const Segment segment = Segment::create(kWarmed, {});
  { const Warmer warmer(segment, 0); }
  EXPECT_LE(allocated_bytes(segment.fd()), base::align_up(kWarmed.total_bytes(), kHugePageBytes));
}

/// Bytes of this memory that are mapped by pages of 2 MiB, as the kernel counts them.
std::uint64_t mapped_huge_bytes(std::span<const std::byte> memory) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
  std::ifstream maps("/proc/self/smaps");
  std::uint64_t kib = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      inside = from < begin + memory.size() && to > begin;
    }
    if (inside && line.starts_with("ShmemPmdMapped:")) kib += std::stoull(line.substr(15));
  }
  return kib * 1024;
}

/// Whether this system makes huge pages of so much shared memory for whoever asks.
bool collapse_works() {
  const Segment segment = Segment::create(kWarmed, {});
  const auto blocks = segment.view().blocks();
  for (std::size_t at = 0; at < blocks.size(); at += kHugePageBytes) blocks[at] = std::byte{1};
  return ::madvise(blocks.data(), blocks.size(), 25 /* MADV_COLLAPSE */) == 0;
}

TEST(Warmer, ReportsThePagesThatItGot) {
  std::uint64_t huge = 0;
  // Where memory is short the system may refuse some of them, and then one step counts for nothing.
  for (int attempt = 0; attempt < 10 && huge != 70; ++attempt) {
    const ckptring::test::LogLines log;
    const Segment segment = Segment::create(kWarmed, {});
    Warmer warmer(segment, 3);
    warmer.wait();
    const auto lines = log.with("ring populated: ");
    ASSERT_EQ(lines.size(), 1u);
    huge = mapped_huge_bytes(segment.view().blocks()) >> 20;
    const std::string told = "[rank 3] ring populated: 70 MiB, ";
    ASSERT_TRUE(lines[0].text.starts_with(told)) << lines[0].text;
    const std::uint64_t reported = std::stoull(lines[0].text.substr(told.size()));
    EXPECT_TRUE(
        lines[0].text.starts_with(told + fmt::format("{} MiB of it in 2 MiB pages", reported)))
        << lines[0].text;
    EXPECT_LE(reported, huge) << lines[0].text;
    if (huge == 70 || huge == 0) {
      EXPECT_EQ(reported, huge) << lines[0].text;
    }
  }
  EXPECT_TRUE(huge == 70 || !collapse_works()) << huge;
}

/// What an older kernel lacks is said once in a process: each of these runs in one of its own.
void warm_without(unsigned advice, const char* said) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [&] {
    if (!ckptring::test::forbid_call(__NR_madvise, EINVAL, advice)) std::_Exit(2);
    const ckptring::test::LogLines log;
    for (int i = 0; i < 3; ++i) {
      const Segment segment = Segment::create(kWarmed, {});
      Warmer warmer(segment, 3);
      warmer.wait();
      const bool all = allocated_bytes(segment.fd()) >= kWarmed.slot_count * kWarmed.block_bytes;
      if (!all) std::_Exit(3);
    }
    const auto lines = log.with(said);
    std::_Exit(lines.size() == 1 && lines[0].text.starts_with("[rank 3] ") ? 0 : 1);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST(WarmerDeathTest, SaysOnceThatItCannotPopulateAndAllocates) {
  warm_without(23, "MADV_POPULATE_WRITE is missing");
}

TEST(WarmerDeathTest, SaysOnceThatItCannotAskForHugePages) {
  warm_without(25, "MADV_COLLAPSE is missing");
}

}  // namespace
}  // namespace ckptring::ring::test
