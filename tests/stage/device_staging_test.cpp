#include "stage/cuda_device_copies.h"
#include "stage/default_stager.h"

#include "base/align.h"
#include "ring/ring_memory.h"
#include "stage/drainer.h"
#include "stage/random_plan.h"
#include "support/checked_fake_cuda.h"

#include <ckptring/error.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>

namespace ckptring::stage::test {
namespace {

using ckptring::test::CheckedFakeCuda;
using ckptring::test::FakeCuda;
using ckptring::test::Schedule;
using ring::Geometry;
using ring::Producer;
using ring::Progress;
using ring::test::kBlock;
using ring::test::RingMemory;

/// How long what would otherwise never happen is waited for.
constexpr std::chrono::seconds kPatience{20};

/// A planned file whose storages are partly in device memory.
struct PlacedFile {
  PlannedFile file;
  std::vector<Source> sources;
};

class DeviceStaging : public ::testing::TestWithParam<Schedule> {
 protected:
  /// Anywhere.
  PlacedFile place(PlannedFile file) {
    return place(std::move(file),
                 [this](const plan::Payload&) { return static_cast<int>(random_() % 3) - 1; });
  }
  /// Where `place_of` says.
  template <class PlaceOf>
  PlacedFile place(PlannedFile file, PlaceOf place_of) {
    PlacedFile placed{std::move(file), {}};
    placed.sources.resize(placed.file.storages.size());
    for (const plan::Payload& payload : placed.file.plan.payloads()) {
      const Bytes& storage = placed.file.storages[payload.source];
      Source& source = placed.sources[payload.source];
      source = {storage.data(), storage.size(), place_of(payload)};
      if (source.place == kHost) continue;
      void* const memory = cuda_.device_alloc(source.place, storage.size());
      cuda_.write(memory, storage);
      source.data = static_cast<std::byte*>(memory);
    }
    return placed;
  }
  StageRequest request(const PlacedFile& placed) {
    return {.plan = placed.file.plan,
            .sources = placed.sources,
            .devices = &copies_,
            .name_of = [](std::uint32_t source) { return "t" + std::to_string(source); },
            .enqueued = [this] { ++enqueued_; }};
  }
  std::uint64_t open(const PlacedFile& placed) {
    return producer_.open(ring::test::file_of(placed.file.plan.total_bytes()), [](auto) {});
  }
  void end(std::uint64_t save, Progress how) {
    ring_.set_consumer_word(save, how);
    ring_.set_finished(save);
  }

  CheckedFakeCuda cuda_{2, GetParam()};
  CudaDeviceCopies copies_{FakeCuda::runtime(), {}};
  RingMemory ring_{Geometry{kBlock, 5, 3, 256}};
  Producer producer_{ring_.view(), ring_.bells()};
  std::unique_ptr<PinnedMemory> pinned_ =
      copies_.pin(ring_.view().blocks(), 2 * kBlock, 0, nullptr);
  os::UniqueFd stop_ = os::make_eventfd();
  DefaultStager stager_{CheckpointStagerConfig{.copy_threads = 2}};
  std::mt19937_64 random_{GetParam().seed() + 1};
  std::atomic<int> enqueued_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Schedules, DeviceStaging,
                         ::testing::ValuesIn(ckptring::test::all_schedules(4)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(DeviceStaging, AStateOfSeveralPlacesStreamsThroughASmallRing) {
  for (int round = 0; round < 5; ++round) {
    const PlacedFile placed = place(random_file(random_, 40, 4 * kBlock));
    const std::uint64_t save = open(placed);
    const std::uint64_t blocks = base::ceil_div(placed.file.plan.total_bytes(), kBlock);
    Drainer drainer(ring_, save,
                    [=](ring::Consumer&, std::uint64_t taken) { return taken < blocks; });
    EXPECT_TRUE(stager_.stage(producer_, request(placed), stop_.get()).complete);
    producer_.seal();
    drainer.join();
    ASSERT_EQ(drainer.file, placed.file.image);
    EXPECT_EQ(enqueued_.exchange(0), 1);
    end(save, Progress::committed);
  }
  EXPECT_EQ(cuda_.counters().straddling_copies, 0u);
  EXPECT_EQ(cuda_.counters().pageable_copies, 0u);
}

TEST_P(DeviceStaging, WhatLiesBehindTheLastByteFromADeviceIsNotWaitedForToSayThatAllIsEnqueued) {
  const PlacedFile placed =
      place(random_file(random_, 60, kBlock), [](const plan::Payload& payload) {
        return payload.file_offset + payload.size <= 3 * kBlock ? 0 : kHost;
      });
  const std::uint64_t blocks = base::ceil_div(placed.file.plan.total_bytes(), kBlock);
  ASSERT_GT(blocks, 10u);
  const std::uint64_t save = open(placed);
  std::promise<void> enqueued;
  StageRequest asked = request(placed);
  asked.enqueued = [&] { enqueued.set_value(); };
  auto complete = std::async(std::launch::async,
                             [&] { return stager_.stage(producer_, asked, stop_.get()).complete; });
  // Nobody drains yet, and the ring has room for five blocks.
  EXPECT_EQ(enqueued.get_future().wait_for(kPatience), std::future_status::ready);
  Drainer drainer(ring_, save,
                  [=](ring::Consumer&, std::uint64_t taken) { return taken < blocks; });
  EXPECT_TRUE(complete.get());
  producer_.seal();
  drainer.join();
  EXPECT_EQ(drainer.file, placed.file.image);
}

TEST_P(DeviceStaging, CopiesFromDevicesAreBegunBeforeAnyByteOfTheHostIsCopied) {
  const RingMemory ring{Geometry{kBlock, 64, 3, 256}};
  Producer producer{ring.view(), ring.bells()};
  const auto pinned = copies_.pin(ring.view().blocks(), 8 * kBlock, 0, nullptr);
  PlannedFile file = random_file(random_, 20, 2 * kBlock);
  const plan::Payload last = file.plan.payloads().back();
  const PlacedFile placed = place(std::move(file), [&](const plan::Payload& payload) {
    return payload.source == last.source ? 1 : kHost;
  });
  const std::uint64_t total = placed.file.plan.total_bytes();
  ASSERT_GT(total, 16 * kBlock);
  (void)producer.open(ring::test::file_of(total), [](auto) {});
  StageRequest asked = request(placed);
  asked.enqueued = [&] {
    EXPECT_TRUE(
        std::ranges::all_of(ring.view().blocks().first(static_cast<std::size_t>(last.file_offset)),
                            [](std::byte b) { return b == std::byte{}; }));
    ++enqueued_;
  };
  DefaultStager stager{CheckpointStagerConfig{.copy_threads = 1}};
  EXPECT_TRUE(stager.stage(producer, asked, stop_.get()).complete);
  producer.seal();
  EXPECT_EQ(enqueued_, 1);
  EXPECT_TRUE(std::ranges::equal(ring.view().blocks().first(static_cast<std::size_t>(total)),
                                 placed.file.image));
}

TEST_P(DeviceStaging, AFailedCopyEndsItsSaveByNameAndTheNextOneWorks) {
  for (unsigned nth = 1; nth < 8; ++nth) {
    const PlacedFile placed = place(random_file(random_, 40, 4 * kBlock));
    const std::uint64_t save = open(placed);
    // What could not be filled becomes void, and whoever drains passes over it.
    Drainer drainer(ring_, save, [](ring::Consumer&, std::uint64_t) { return true; });
    cuda_.fail(ckptring::test::Call::event_record, nth, cudaErrorUnknown);
    try {
      (void)stager_.stage(producer_, request(placed), stop_.get());
      ADD_FAILURE() << "nothing failed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::device_failed);
      EXPECT_THAT(error.what(), ::testing::AllOf(::testing::ContainsRegex("^stage keys? t[0-9]+"),
                                                 ::testing::HasSubstr("copy from device "),
                                                 ::testing::HasSubstr("cudaErrorUnknown: ")));
    }
    EXPECT_EQ(enqueued_.exchange(0), 1);
    producer_.abort();
    drainer.join();
    EXPECT_EQ(ring_.tail(), ring_.view().record(save).end_position.load());
    end(save, Progress::aborted);
  }
  const PlacedFile placed = place(random_file(random_, 2, kBlock));
  const std::uint64_t save = open(placed);
  const std::uint64_t blocks = base::ceil_div(placed.file.plan.total_bytes(), kBlock);
  Drainer drainer(ring_, save,
                  [=](ring::Consumer&, std::uint64_t taken) { return taken < blocks; });
  EXPECT_TRUE(stager_.stage(producer_, request(placed), stop_.get()).complete);
  producer_.seal();
  drainer.join();
  EXPECT_EQ(drainer.file, placed.file.image);
}

}  // namespace
}  // namespace ckptring::stage::test
