// Records and files beyond 4 GiB, through the whole path: sync, async, load.
#include <ATen/ATen.h>

#include <cstddef>
#include <filesystem>
#include <random>
#include <span>

#include "contract/contract.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

constexpr std::uint64_t kGiB = 1ull << 30;
/// What 32 bits can count, and several blocks more.
constexpr std::uint64_t kCountable = 4 * kGiB;
constexpr std::uint64_t kBytes = kCountable + (16 << 20) + 1;
/// A number of pages without small factors is repeated, so that a block that got to another block's
/// place differs from it.
constexpr std::uint64_t kPeriod = 16'381ull * 4096;

/// All that there is of `repeated_bytes`.
at::Tensor period_of(const at::Tensor& repeated) {
  return repeated.slice(0, 0, static_cast<std::int64_t>(kPeriod));
}

at::Tensor random_period() {
  at::Tensor made = at::empty({static_cast<std::int64_t>(kPeriod)}, at::kByte);
  std::mt19937_64 random(1);
  for (std::byte& byte : std::span(static_cast<std::byte*>(made.mutable_data_ptr()), kPeriod)) {
    byte = static_cast<std::byte>(random() >> 56);
  }
  return made;
}

class Large : public Contract {};
INSTANTIATE_TEST_SUITE_P(Paths, Large, testing::Values(Path::sync, Path::async),
                         testing::PrintToStringParamName());

TEST_P(Large, ARecordOfMoreThan4GiBAndOneBeyondItComeBack) {
  if (std::filesystem::space(directory.path()).available < 6 * kGiB) {
    GTEST_SKIP() << directory.path() << " has no room for a file of 4 GiB";
  }
  const at::Tensor values = random_period();
  const at::Tensor behind = noise({300, 7}, c10::kFloat);
  // Large as it is, it is not placed but made in its place.
  const at::Tensor large = repeated_bytes(kBytes, kPeriod);
  period_of(large).copy_(values);
  const StateDict state = dict({{"large", large}, {"end", large.slice(0, kCountable)}});
  state.insert_or_assign("behind", placed(dict({{"behind", behind}})).at("behind"));
  CheckpointerConfig config = small_ring();
  config.process_config.block_bytes = 4 << 20;
  config.process_config.ring_bytes = 64 << 20;
  checkpointer = make_checkpointer(GetParam(), config);
  EXPECT_GT(checkpointer->save(directory / "it", state).written.get().bytes, kBytes);

  // Its checksum speaks for the whole record; the last period stays to be looked at.
  const at::Tensor loaded = repeated_bytes(kBytes, kPeriod);
  const at::Tensor small = at::zeros({300, 7}, training_device());
  (void)checkpointer->load(directory / "it", dict({{"large", loaded}, {"behind", small}}));
  EXPECT_TRUE(at::equal(period_of(loaded).cpu(), values));
  EXPECT_EQ(bits(small), bits(behind));

  // What lies beyond, alone: a period's bytes would otherwise hide those of another one.
  constexpr std::uint64_t kBegin = kCountable % kPeriod;
  const at::Tensor expected = values.slice(0, kBegin, kBegin + (kBytes - kCountable));
  const at::Tensor end =
      at::zeros(expected.sizes(), at::TensorOptions().dtype(at::kByte).device(training_device()));
  (void)checkpointer->load(directory / "it", dict({{"end", end}}), {.verify_checksums = false});
  EXPECT_TRUE(at::equal(end.cpu(), expected));
}

}  // namespace
}  // namespace ckptring::test
