#include "stage/capture_selection.h"

#include <ckptring/error.h>
#include <gmock/gmock.h>

#include <random>

namespace ckptring::stage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string key(std::uint32_t source) { return "k" + std::to_string(source); }

std::vector<CaptureAt> selected(const std::vector<Source>& sources, std::uint64_t small_bytes,
                                std::uint64_t volatile_bytes = 1 << 20) {
  return select_captured(sources, {small_bytes, volatile_bytes}, "/run", key);
}

Source of(std::uint64_t size, int place = kHost, bool is_volatile = false) {
  return {nullptr, size, place, is_volatile};
}

TEST(CaptureSelection, IsOfAllSmallStoragesWhereTheyFit) {
  const auto found = selected({of(100), of(0), of(kSmallStorageBytes), of(kSmallStorageBytes + 1)},
                              100 + kSmallStorageBytes);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].place, kHost);
  EXPECT_THAT(found[0].sources, ElementsAre(0, 2));
  EXPECT_EQ(found[0].bytes, 100 + kSmallStorageBytes);
}

TEST(CaptureSelection, IsElseOfTheSmallestAndOfEqualOnesOfTheFirst) {
  const std::vector<Source> sources{of(300), of(200), of(300), of(1), of(300), of(260)};
  EXPECT_THAT(selected(sources, 1 + 200 + 260 + 2 * 300 + 299)[0].sources,
              ElementsAre(0, 1, 2, 3, 5));
  EXPECT_THAT(selected(sources, 1 + 200 + 259)[0].sources, ElementsAre(1, 3));
  EXPECT_TRUE(selected(sources, 0).empty());
}

TEST(CaptureSelection, OfEqualStoragesTakesAsManyAsFit) {
  const std::vector<Source> sources(20'000, of(16 << 10));
  const auto found = selected(sources, 4 << 20);
  ASSERT_EQ(found[0].sources.size(), 256u);
  EXPECT_EQ(found[0].sources.back(), 255u);
}

TEST(CaptureSelection, IsTheSameAsOfSortingThemAll) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<Source> sources;
    for (std::size_t i = 0; i < 1 + random() % 300; ++i) {
      sources.push_back(of(1 + random() % (kSmallStorageBytes >> random() % 16)));
    }
    const std::uint64_t limit = random() % (2 << 20);
    std::vector<std::uint32_t> order(sources.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::stable_sort(order, {}, [&](std::uint32_t i) { return sources[i].size; });
    std::uint64_t bytes = 0;
    std::vector<std::uint32_t> expected;
    for (const std::uint32_t i : order) {
      if (bytes + sources[i].size > limit) break;
      bytes += sources[i].size;
      expected.push_back(i);
    }
    std::ranges::sort(expected);
    const auto found = selected(sources, limit);
    ASSERT_EQ(found.empty(), expected.empty());
    if (found.empty()) continue;
    ASSERT_EQ(found[0].sources, expected) << "round " << round;
    ASSERT_EQ(found[0].bytes, bytes);
  }
}

TEST(CaptureSelection, OfWhatIsDeclaredVolatileIsOfAnySizeAndBesideTheSmallOnes) {
  const auto found = selected({of(10), of(500'000, kHost, true), of(10), of(20, kHost, true)}, 15);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].sources, ElementsAre(0, 1, 3));
  EXPECT_EQ(found[0].bytes, 500'030u);
}

TEST(CaptureSelection, HasItsLimitsAtEachPlace) {
  const auto found = selected(
      {of(10, 1), of(10), of(10, 0), of(10, 1), of(700'000, 1, true), of(700'000, kHost, true)},
      15);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].place, 1);
  EXPECT_THAT(found[0].sources, ElementsAre(0, 4));
  EXPECT_EQ(found[1].place, kHost);
  EXPECT_THAT(found[1].sources, ElementsAre(1, 5));
  EXPECT_EQ(found[2].place, 0);
  EXPECT_THAT(found[2].sources, ElementsAre(2));
}

TEST(CaptureSelection, OfMoreThanMayBeDeclaredIsRefusedWithTheFirstThatIsTooMuch) {
  try {
    (void)selected({of(600'000, 1, true), of(600'000, 0, true), of(500'000, 1, true)}, 0);
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
    EXPECT_THAT(error.what(), HasSubstr("capture key k2 for /run: "));
    EXPECT_THAT(error.what(), HasSubstr("1.0 MiB, and capture_volatile_bytes allows 1.0 MiB"));
  }
}

}  // namespace
}  // namespace ckptring::stage
