#include "store/block_drain.h"

#include "base/checksum.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

namespace ckptring::store {
namespace {

/// A plan and the file as it must come out, computed the plain way from the whole image.
struct Case {
  std::vector<plan::Payload> payloads;
  std::vector<plan::Fixup> fixups;
  std::vector<std::byte> raw;       // fix-up fields hold garbage
  std::vector<std::byte> finished;  // fix-up fields hold the checksums

  [[nodiscard]] plan::FilePlan plan() const {
    std::vector<std::byte> literals;
    std::uint64_t at = 0;
    for (const plan::Payload& payload : payloads) {
      literals.insert(literals.end(), raw.begin() + static_cast<std::ptrdiff_t>(at),
                      raw.begin() + static_cast<std::ptrdiff_t>(payload.file_offset));
      at = payload.file_offset + payload.size;
    }
    literals.insert(literals.end(), raw.begin() + static_cast<std::ptrdiff_t>(at), raw.end());
    return plan::FilePlan(std::move(literals), payloads, fixups, raw.size());
  }
};

void finish(Case& c, std::mt19937& random) {
  c.finished = c.raw;
  for (const plan::Fixup& fixup : c.fixups) {
    const plan::Payload& payload = c.payloads[fixup.payload];
    const std::uint32_t crc =
        base::crc32(std::span(c.raw).subspan(payload.file_offset, payload.size));
    for (std::size_t byte = 0; byte < 4; ++byte) {
      c.finished[fixup.file_offset + byte] = static_cast<std::byte>(crc >> (8 * byte));
      c.raw[fixup.file_offset + byte] = static_cast<std::byte>(random());
    }
  }
}

/// Payloads and gaps of random sizes; fix-ups at random places in the gaps, each behind its
/// payload, so that they straddle blocks at every split.
Case random_case(std::uint32_t seed, std::size_t payload_count, std::size_t max_size) {
  std::mt19937 random(seed);
  const auto below = [&](std::size_t bound) { return random() % bound; };
  Case c;
  std::uint64_t at = below(9);
  for (std::size_t i = 0; i < payload_count; ++i) {
    const std::uint64_t size = below(5) == 0 ? 0 : below(max_size);
    c.payloads.push_back({at, size, static_cast<std::uint32_t>(i)});
    at += size;
    const std::uint64_t gap_end = at + below(40);
    while (at + 4 <= gap_end) {
      if (below(2) == 0) {
        c.fixups.push_back({at, static_cast<std::uint32_t>(below(i + 1))});
        at += 4;
      }
      at += below(3);
    }
    at = std::max(at, gap_end);
  }
  for (std::size_t i = 0; i < payload_count; ++i) {
    at += below(3);
    c.fixups.push_back({at, static_cast<std::uint32_t>(i)});
    at += 4;
  }
  c.raw.resize(at + below(5));
  for (std::byte& byte : c.raw) byte = static_cast<std::byte>(random());
  finish(c, random);
  return c;
}

struct Tables {
  DrainTableSizes sizes;
  std::vector<std::uint64_t> memory;

  Tables(const plan::FilePlan& plan, std::uint64_t block_bytes)
      : sizes(DrainTableSizes::of(plan, block_bytes)),
        memory(sizes.bytes() / sizeof(std::uint64_t), 77) {  // the ledger must be zeroed
    fill_drain_tables(plan, block_bytes, sizes, std::as_writable_bytes(std::span(memory)));
  }
  DrainTables view() { return drain_tables_in(std::as_writable_bytes(std::span(memory)), sizes); }
};

double thread_seconds() {
  ::timespec now{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0)
    throw std::runtime_error("clock_gettime");
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void finalize_from(BlockDrain& drain, std::vector<std::byte>& image, std::size_t block_bytes,
                   std::size_t first_block) {
  for (std::size_t at = first_block * block_bytes; at < image.size(); at += block_bytes) {
    drain.finalize(at, std::span(image).subspan(at, std::min(block_bytes, image.size() - at)));
  }
}

TEST(BlockDrain, PatchesTheChecksumsOfRandomPlansAtEveryCut) {
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    const Case c = random_case(seed, 12, 300);
    const plan::FilePlan plan = c.plan();
    for (const std::size_t block_bytes : {1UL, 2UL, 3UL, 7UL, 64UL, 100UL, 4096UL}) {
      Tables tables(plan, block_bytes);
      BlockDrain drain(tables.view(), block_bytes, c.raw.size());
      std::vector<std::byte> image = c.raw;
      finalize_from(drain, image, block_bytes, 0);
      ASSERT_EQ(image, c.finished) << "seed " << seed << ", blocks of " << block_bytes;
    }
  }
}

TEST(BlockDrain, GoesOnFromAnyBlockWithThePredecessorsLedger) {
  constexpr std::size_t kBlock = 64;
  for (std::uint32_t seed = 100; seed < 110; ++seed) {
    const Case c = random_case(seed, 12, 300);
    const plan::FilePlan plan = c.plan();
    const std::size_t blocks = (c.raw.size() + kBlock - 1) / kBlock;
    for (std::size_t round = 0; round < 2 * blocks; ++round) {
      const std::size_t restart = round / 2;
      // Every other predecessor got further than what it released: some blocks are done twice.
      const std::size_t ahead = round % 2 == 0 ? 0 : 3;
      Tables tables(plan, kBlock);
      std::vector<std::byte> image = c.raw;
      {
        BlockDrain drain(tables.view(), kBlock, c.raw.size());
        for (std::size_t block = 0; block < std::min(restart + ahead, blocks); ++block) {
          drain.finalize(block * kBlock,
                         std::span(image).subspan(block * kBlock,
                                                  std::min(kBlock, image.size() - block * kBlock)));
        }
      }
      BlockDrain drain(tables.view(), kBlock, c.raw.size());
      finalize_from(drain, image, kBlock, restart);
      ASSERT_EQ(image, c.finished) << "seed " << seed << ", restart at block " << restart;
    }
  }
}

TEST(BlockDrain, CountsOneLedgerEntryForEachPieceOfAPayloadInABlock) {
  // Blocks of 100: [90,110) has two pieces, [110,110) none, [200,300) one, [299+1,501) three.
  const std::vector<plan::Payload> payloads = {
      {90, 20, 0}, {110, 0, 1}, {200, 100, 2}, {300, 201, 3}};
  const plan::FilePlan plan(std::vector<std::byte>(600 - 321), payloads, {}, 600);
  EXPECT_EQ(DrainTableSizes::of(plan, 100).ledger, 2U + 0U + 1U + 3U);
}

/// A payload in two blocks of 50 bytes; a third one carries its checksum.
Case one_payload() {
  Case c;
  std::mt19937 random(1);
  c.payloads = {{0, 100, 0}};
  c.fixups = {{120, 0}};
  c.raw.resize(130);
  finish(c, random);
  return c;
}

TEST(BlockDrain, RefusesToPatchWhenAnEarlierBlockIsMissingInTheLedger) {
  Case c = one_payload();
  Tables tables(c.plan(), 50);
  BlockDrain drain(tables.view(), 50, 130);
  EXPECT_THROW(drain.finalize(100, std::span(c.raw).subspan(100)), Error);
}

TEST(BlockDrain, RefusesABlockThatChangedAfterItsChecksumWasRecorded) {
  Case c = one_payload();
  Tables tables(c.plan(), 50);
  BlockDrain drain(tables.view(), 50, 130);
  drain.finalize(0, std::span(c.raw).first(50));
  c.raw[7] ^= std::byte{1};
  EXPECT_THROW(drain.finalize(0, std::span(c.raw).first(50)), Error);
}

TEST(BlockDrain, RefusesBlocksThatAreNotOfTheFile) {
  Case c;
  std::mt19937 random(1);
  c.payloads = {{0, 100, 0}};
  c.raw.resize(130);
  finish(c, random);
  Tables tables(c.plan(), 50);
  BlockDrain drain(tables.view(), 50, 130);
  EXPECT_THROW(drain.finalize(20, std::span(c.raw).subspan(20, 50)), Error);
  EXPECT_THROW(drain.finalize(150, std::span(c.raw).first(10)), Error);
  EXPECT_THROW(drain.finalize(0, std::span(c.raw).first(49)), Error);
}

TEST(BlockDrain, RefusesTablesThatContradictEachOther) {
  const auto good = [] {
    return std::pair(std::vector<DrainTables::PayloadExtent>{{10, 100, 0}, {120, 50, 2}},
                     std::vector<DrainTables::FixupEntry>{{114, 0}, {180, 1}});
  };
  std::vector<std::uint64_t> ledger(3, 0);
  constexpr std::uint64_t kMax = ~0ULL;
  const auto make = [&](auto&& damage, std::uint64_t block_bytes = 100, std::uint64_t total = 200) {
    auto [payloads, fixups] = good();
    std::span<std::uint64_t> entries(ledger);
    damage(payloads, fixups, entries);
    BlockDrain(DrainTables{payloads, fixups, entries}, block_bytes, total);
  };
  EXPECT_NO_THROW(make([](auto&, auto&, auto&) {}));
  EXPECT_THROW(make([](auto&, auto&, auto&) {}, 0), Error);
  EXPECT_THROW(make([](auto&, auto&, auto&) {}, 100, 183), Error);
  EXPECT_THROW(make([](auto& p, auto&, auto&) { p[1].size = kMax; }), Error);
  EXPECT_THROW(make([](auto& p, auto&, auto&) { p[1].file_offset = kMax; }), Error);
  EXPECT_THROW(make([](auto& p, auto&, auto&) { p[1].file_offset = 109; }), Error);
  EXPECT_THROW(make([](auto& p, auto&, auto&) { p[1].first_ledger_entry = 1; }), Error);
  EXPECT_THROW(make([](auto& p, auto&, auto&) { p[1].first_ledger_entry = kMax; }), Error);
  EXPECT_THROW(make([](auto&, auto& f, auto&) { f[1].payload = 2; }), Error);
  EXPECT_THROW(make([](auto&, auto& f, auto&) { f[1].file_offset = kMax - 1; }), Error);
  EXPECT_THROW(make([](auto&, auto& f, auto&) { f[1].file_offset = 117; }), Error);
  EXPECT_THROW(make([](auto&, auto& f, auto&) { f[1].file_offset = 169; }), Error);
  EXPECT_THROW(make([](auto&, auto& f, auto&) { f[0].file_offset = 109; }), Error);
  EXPECT_THROW(make([](auto&, auto& f, auto&) { f[0].payload = 1; }), Error);
  EXPECT_THROW(make([](auto&, auto&, auto& l) { l = l.first(2); }), Error);
}

/// Processor time of this thread for all blocks of a file with so many payloads, the least of some
/// attempts: whoever else uses the machine is not counted.
double drain_seconds(std::size_t payloads, std::size_t block_bytes) {
  const Case c = random_case(5, payloads, 60);
  const plan::FilePlan plan = c.plan();
  double least = std::numeric_limits<double>::infinity();
  for (int attempt = 0; attempt < 7; ++attempt) {
    Tables tables(plan, block_bytes);
    std::vector<std::byte> image = c.raw;
    const double begin = thread_seconds();
    BlockDrain drain(tables.view(), block_bytes, c.raw.size());
    finalize_from(drain, image, block_bytes, 0);
    least = std::min(least, thread_seconds() - begin);
    EXPECT_EQ(image, c.finished);
  }
  return least;
}

TEST(BlockDrain, IsCheapForTwentyThousandPayloads) {
  // Eight times as many in eight times as many blocks: a walk over all payloads for each block
  // would take 64 times as long.
  const double few = drain_seconds(2'500, 256);
  const double many = drain_seconds(20'000, 256);
  EXPECT_LT(many, 20 * few) << many << " s and " << few << " s";
}

}  // namespace
}  // namespace ckptring::store
