#include "stage/samples.h"

#include "stage/random_plan.h"

#include <gtest/gtest.h>

namespace ckptring::stage::test {
namespace {

constexpr std::size_t kBlock = 4096;

/// What `samples` say of a whole file, block by block.
std::optional<std::uint32_t> changed_in(const Samples& samples, std::span<const std::byte> image) {
  for (std::size_t at = 0; at < image.size(); at += kBlock) {
    const auto block = image.subspan(at, std::min(kBlock, image.size() - at));
    if (const auto changed = samples.first_changed(at, block)) return changed;
  }
  return std::nullopt;
}

TEST(Samples, FindNothingInWhatWasStagedAsItWas) {
  std::mt19937_64 random(1);
  for (std::uint64_t round = 0; round < 100; ++round) {
    const PlannedFile file = random_file(random, random() % 40, 1 + random() % 20'000);
    const std::vector<Source> sources = file.sources();
    const Samples samples(file.plan, sources, std::vector<bool>(sources.size()), round);
    EXPECT_GE(samples.count(), sources.size());
    EXPECT_EQ(changed_in(samples, file.image), std::nullopt);
  }
}

TEST(Samples, FindEachPayloadThatWasStagedWithOtherBytes) {
  std::mt19937_64 random(2);
  for (std::uint64_t round = 0; round < 50; ++round) {
    const PlannedFile file = random_file(random, 12, 1 + random() % 20'000);
    const std::vector<Source> sources = file.sources();
    const Samples samples(file.plan, sources, std::vector<bool>(sources.size()), round);
    for (const plan::Payload& payload : file.plan.payloads()) {
      Bytes image = file.image;
      for (std::size_t i = 0; i < payload.size; ++i) image[payload.file_offset + i] ^= std::byte{1};
      EXPECT_EQ(changed_in(samples, image), payload.source);
    }
  }
}

TEST(Samples, FindATearWhereverItIsInALargePayload) {
  // Written from some place on while it was copied.
  const Bytes bytes(1 << 20, std::byte{1});
  const plan::FilePlan plan({}, {{0, bytes.size(), 0}}, {}, bytes.size());
  const std::vector<Source> sources{{bytes.data(), bytes.size()}};
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Samples samples(plan, sources, {false}, seed);
    Bytes image = bytes;
    // An eighth of it has a line that is looked at.
    const std::size_t from = seed * 8'192 % (7 * bytes.size() / 8);
    std::fill(image.begin() + static_cast<std::ptrdiff_t>(from), image.end(), std::byte{2});
    EXPECT_EQ(changed_in(samples, image), 0u);
  }
}

TEST(Samples, LookAtOtherLinesEachTime) {
  const Bytes bytes(64 * 64, std::byte{1});
  const plan::FilePlan plan({}, {{0, bytes.size(), 0}}, {}, bytes.size());
  const std::vector<Source> sources{{bytes.data(), bytes.size()}};
  for (std::size_t line = 0; line < 64; ++line) {
    Bytes image = bytes;
    image[line * 64 + 17] = std::byte{2};
    bool found = false;
    for (std::uint64_t seed = 0; seed < 300 && !found; ++seed) {
      found = changed_in(Samples(plan, sources, {false}, seed), image).has_value();
    }
    EXPECT_TRUE(found) << "line " << line;
  }
}

TEST(Samples, LookAtTheEndOfAPayloadThatIsNoWholeLine) {
  const Bytes bytes(130, std::byte{1});
  const plan::FilePlan plan({}, {{0, bytes.size(), 0}}, {}, bytes.size());
  const std::vector<Source> sources{{bytes.data(), bytes.size()}};
  Bytes image = bytes;
  image.back() = std::byte{2};
  EXPECT_EQ(changed_in(Samples(plan, sources, {false}, 1), image), 0u);
}

TEST(Samples, LeaveOutWhatMayChangeAndWhatIsOnADevice) {
  const Bytes bytes(kBlock, std::byte{1});
  const plan::FilePlan plan({}, {{0, kBlock, 0}, {kBlock, kBlock, 1}}, {}, 2 * kBlock);
  const std::vector<Source> sources{{bytes.data(), kBlock}, {nullptr, kBlock, 0}};
  EXPECT_EQ(Samples(plan, sources, {true, false}, 1).count(), 0u);
  const Samples of_the_first(plan, sources, {false, false}, 1);
  EXPECT_EQ(of_the_first.first_changed(kBlock, Bytes(kBlock)), std::nullopt);
  EXPECT_EQ(of_the_first.first_changed(0, Bytes(kBlock)), 0u);
}

TEST(Samples, OfManyPayloadsAreFewOfEach) {
  const Bytes bytes(1024, std::byte{1});
  std::vector<plan::Payload> payloads;
  for (std::uint32_t i = 0; i < 5'000; ++i) payloads.push_back({i * bytes.size(), bytes.size(), i});
  const plan::FilePlan plan({}, std::move(payloads), {}, 5'000 * bytes.size());
  const std::vector<Source> sources(5'000, {bytes.data(), bytes.size()});
  EXPECT_EQ(Samples(plan, sources, std::vector<bool>(5'000), 1).count(), 5'000u);
  std::vector<bool> left_out(5'000, true);
  std::fill_n(left_out.begin(), 100, false);
  EXPECT_EQ(Samples(plan, sources, left_out, 1).count(), 800u);
}

}  // namespace
}  // namespace ckptring::stage::test
