#include "ring/segment.h"

#include "os/eventfd.h"
#include "os/memfd.h"
#include "ring/ring_memory.h"
#include "support/mapping_flags.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <string>

namespace ckptring::ring::test {
namespace {

using ::testing::HasSubstr;

os::UniqueFd another(int fd) { return os::UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

/// The error of an attempt to attach, in words; empty if it worked.
std::string refusal(os::UniqueFd fd) {
  try {
    (void)Segment::attach(std::move(fd));
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

/// A sealed memory file that begins with this header.
os::UniqueFd forged(const Header& header, std::uint64_t bytes) {
  os::UniqueFd fd = os::make_memfd("forged", bytes);
  EXPECT_EQ(::pwrite(fd.get(), &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
  return fd;
}

Header good_header() { return {kMagic, kProtocolVersion, 0, kSmall, {}}; }

TEST(Segment, IsNoPartOfACoreDumpInEitherProcess) {
  const auto is_dumped = [](const Segment& segment) {
    const std::span<std::byte> blocks = segment.view().blocks();
    const auto flags = {ckptring::test::mapping_flags(&segment.view().consumer()),
                        ckptring::test::mapping_flags(&blocks.front()),
                        ckptring::test::mapping_flags(&blocks.back())};
    return std::any_of(flags.begin(), flags.end(), [](const std::string& of_page) {
      return of_page.find(" dd ") == std::string::npos;
    });
  };
  const Segment segment = Segment::create(kSmall, {});
  EXPECT_FALSE(is_dumped(segment));
  EXPECT_FALSE(is_dumped(Segment::attach(another(segment.fd()))));
}

TEST(Segment, IsEmptyWhenNew) {
  const Segment segment = Segment::create(kSmall, {});
  const SegmentView& view = segment.view();
  EXPECT_EQ(view.consumer().tail.load(), 0u);
  EXPECT_EQ(view.consumer().finished_saves.load(), 0u);
  EXPECT_EQ(view.consumer().ready.load(), 0u);
  EXPECT_EQ(view.supervisor().shutdown.load(), 0u);
  for (std::uint64_t i = 0; i < kSmall.slot_count; ++i) {
    EXPECT_EQ(view.slot(i).published.load(), 0u);
  }
  for (std::uint64_t i = 0; i < kSmall.record_count; ++i) {
    EXPECT_EQ(view.record(i).producer_word.load(), 0u);
    EXPECT_EQ(view.record(i).consumer_word.load(), 0u);
  }
  const auto blocks = view.blocks();
  EXPECT_EQ(blocks.size(), kSmall.slot_count * kBlock);
  EXPECT_TRUE(
      std::all_of(blocks.begin(), blocks.end(), [](std::byte b) { return b == std::byte{}; }));
}

TEST(Segment, IsTheSameMemoryForBothSides) {
  Settings settings{};
  settings.global_rank = 3;
  settings.orphan_timeout_secs = 1.5;
  const Segment made = Segment::create(kSmall, settings);
  const Segment attached = Segment::attach(another(made.fd()));
  EXPECT_EQ(attached.view().settings().global_rank, 3);
  EXPECT_EQ(attached.view().settings().orphan_timeout_secs, 1.5);
  EXPECT_EQ(attached.view().geometry().slot_count, kSmall.slot_count);
  made.view().block(2)[kBlock - 1] = std::byte{7};
  made.view().plan_area().back() = std::byte{8};
  made.view().record(2).producer_word = 9;
  made.view().consumer().progress_ns = 10;
  EXPECT_EQ(attached.view().block(2)[kBlock - 1], std::byte{7});
  EXPECT_EQ(attached.view().plan_area().back(), std::byte{8});
  EXPECT_EQ(attached.view().record(2).producer_word, 9u);
  EXPECT_EQ(attached.view().consumer().progress_ns, 10u);
}

TEST(Segment, IsAlignedForHugePagesAndDirectWrites) {
  const Segment segment = Segment::create(kSmall, {});
  const auto address = [](const auto& at) { return reinterpret_cast<std::uintptr_t>(&at); };
  EXPECT_EQ(address(segment.view().blocks()[0]) % kHugePageBytes, 0u);
  EXPECT_EQ(address(segment.view().slot(0)) % kCacheLine, 0u);
  EXPECT_EQ(address(segment.view().record(0)) % kCacheLine, 0u);
  EXPECT_EQ(address(segment.view().plan_area()[0]) % kCacheLine, 0u);
}

TEST(Segment, CannotBeMadeWithNonsense) {
  EXPECT_THROW((void)Segment::create({4095, 4, 3, 256}, {}), Error);
  try {
    (void)Segment::create({4096, 1, 3, 256}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), HasSubstr("at least 2 blocks"));
  }
}

TEST(Segment, CannotBeMadeLargerThanTheAddressSpace) {
  try {
    (void)Segment::create({1ull << 30, 1ull << 16, 3, 1ull << 46}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  }
}

TEST(Segment, RefusesADescriptorThatIsNoMemoryFile) {
  EXPECT_THAT(refusal(os::make_eventfd()), HasSubstr("not a ring"));
  EXPECT_THAT(refusal(os::UniqueFd(::open("/dev/zero", O_RDWR | O_CLOEXEC))),
              HasSubstr("not a ring"));
  EXPECT_THAT(refusal(os::UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC))),
              HasSubstr("not a ring"));
  EXPECT_THAT(refusal(os::UniqueFd()), HasSubstr("attach to the ring"));
}

TEST(Segment, RefusesMemoryThatIsTooSmallForAHeader) {
  EXPECT_THAT(refusal(os::make_memfd("small", sizeof(Header) - 1)), HasSubstr("not a ring"));
  EXPECT_THAT(refusal(os::make_memfd("empty", 0)), HasSubstr("not a ring"));
}

TEST(Segment, RefusesMemoryWithoutTheMagicNumber) {
  Header header = good_header();
  header.magic ^= 1;
  EXPECT_THAT(refusal(forged(header, kSmall.total_bytes())), HasSubstr("not a ring"));
  EXPECT_THAT(refusal(os::make_memfd("zeros", kSmall.total_bytes())), HasSubstr("not a ring"));
}

TEST(Segment, RefusesAnotherVersionAndNamesBoth) {
  Header header = good_header();
  header.protocol_version = kProtocolVersion + 41;
  const std::string words = refusal(forged(header, kSmall.total_bytes()));
  EXPECT_THAT(words, HasSubstr("version " + std::to_string(kProtocolVersion + 41)));
  EXPECT_THAT(words, HasSubstr("version " + std::to_string(kProtocolVersion)));
}

TEST(Segment, RefusesAHostileGeometry) {
  const std::uint64_t bytes = kSmall.total_bytes();
  const auto with = [&](const std::function<void(Geometry&)>& spoil) {
    Header header = good_header();
    spoil(header.geometry);
    return refusal(forged(header, bytes));
  };
  EXPECT_THAT(with([](Geometry& g) { g.block_bytes = 0; }), HasSubstr("block size"));
  EXPECT_THAT(with([](Geometry& g) { g.slot_count = UINT64_MAX; }), HasSubstr("64 TiB"));
  EXPECT_THAT(with([](Geometry& g) { g.slot_count = 0; }), HasSubstr("2 blocks"));
  EXPECT_THAT(with([](Geometry& g) { g.record_count = UINT64_MAX; }), HasSubstr("records"));
  EXPECT_THAT(with([](Geometry& g) { g.plan_bytes = UINT64_MAX - 63; }), HasSubstr("plan area"));
  EXPECT_THAT(with([](Geometry& g) { ++g.slot_count; }), HasSubstr("size does not match"));
  EXPECT_THAT(with([](Geometry& g) { --g.slot_count; }), HasSubstr("size does not match"));
  EXPECT_THAT(with([](Geometry& g) { g.plan_bytes = 8ull << 20; }),
              HasSubstr("size does not match"));
}

TEST(Segment, RefusesMemoryThatMayShrink) {
  os::UniqueFd fd(::memfd_create("unsealed", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), static_cast<off_t>(kSmall.total_bytes())), 0);
  const Header header = good_header();
  ASSERT_EQ(::pwrite(fd.get(), &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
  EXPECT_THAT(refusal(std::move(fd)), HasSubstr("may shrink"));
}

TEST(Segment, KeepsItsBoundsWhateverThePeerWritesIntoTheHeader) {
  const Segment segment = Segment::create(kSmall, {});
  const Segment attached = Segment::attach(another(segment.fd()));
  Header header = good_header();
  header.geometry.slot_count = 1ull << 40;
  ASSERT_EQ(::pwrite(segment.fd(), &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
  EXPECT_EQ(attached.view().geometry().slot_count, kSmall.slot_count);
  EXPECT_EQ(attached.view().block(kSmall.slot_count).data(), attached.view().block(0).data());
}

TEST(Segment, IsGoneInAForkedChild) {
  const Segment segment = Segment::create(kSmall, {});
  // By name: something else may be mapped at the address by then.
  const auto is_mapped = [] {
    std::ifstream in("/proc/self/maps");
    const std::string maps{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    return maps.find("memfd:ckptring") != std::string::npos;
  };
  ASSERT_TRUE(is_mapped());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const bool closed = ::fcntl(segment.fd(), F_GETFD) < 0 && errno == EBADF;
    const bool unmapped = !is_mapped();
    ::_exit((closed ? 0 : 1) + (unmapped ? 0 : 2));
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_GE(::fcntl(segment.fd(), F_GETFD), 0);
}

TEST(Segment, LeavesNoMappingBehind) {
  void* address = nullptr;
  {
    const Segment segment = Segment::create(kSmall, {});
    address = segment.view().blocks().data();
  }
  unsigned char residency = 0;
  EXPECT_NE(::mincore(address, 4096, &residency), 0);
}

}  // namespace
}  // namespace ckptring::ring::test
