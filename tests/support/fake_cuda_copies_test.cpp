#include "support/fake_cuda.h"

#include "support/fake_cuda_rules.h"

#include <array>
#include <vector>

namespace ckptring::test {
namespace {

using FakeCudaBatches = FakeCudaSchedules;
FAKE_CUDA_SCHEDULES(FakeCudaBatches);

TEST_F(FakeCudaRules, TheDirectionIsThatOfThePointersAndTheSidesDoNotOverlap) {
  auto* const stream = cuda_.training_stream(0);
  auto* const memory = static_cast<std::byte*>(device_memory(0, 100, 1));
  EXPECT_EQ(api_.memcpy_async(host_.data(), memory, 10, cudaMemcpyHostToDevice, stream),
            cudaErrorInvalidMemcpyDirection);
  expect_violation("direction");
  EXPECT_EQ(copy(memory, memory + 9, 10, stream), cudaErrorInvalidValue);
  expect_violation("overlap");
  EXPECT_EQ(copy(nullptr, memory, 10, stream), cudaErrorInvalidValue);
  EXPECT_EQ(copy(nullptr, memory, 0, stream), cudaSuccess);
}

TEST_P(FakeCudaBatches, CopiesOfABatchAreOrderedWithTheirStream) {
  auto* const stream = cuda_.training_stream(0);
  std::vector<void*> memory;
  std::vector<void*> to;
  std::vector<std::size_t> sizes;
  std::size_t at = 0;
  for (int i = 0; i < 20; ++i) {
    const auto bytes = static_cast<std::size_t>(i + 1) * 10;
    memory.push_back(device_memory(0, bytes, 1));
    cuda_.launch_fill(stream, memory.back(), bytes, static_cast<std::byte>(i + 2));
    to.push_back(host_.data() + at);
    sizes.push_back(bytes);
    at += bytes;
  }
  EXPECT_EQ(batch(to, {memory.begin(), memory.end()}, sizes, stream), cudaSuccess);
  cuda_.launch_fill(stream, memory[19], 200, std::byte{99});
  cuda_.synchronise(stream);
  for (std::size_t i = 0; i < 20; ++i) {
    const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(to[i]) - host_.data());
    EXPECT_TRUE(host_.hold(static_cast<int>(i) + 2, offset, sizes[i]));
  }
  EXPECT_EQ(cuda_.counters().batched_copies, 20u);
  EXPECT_EQ(cuda_.counters().copies, 20u);
  EXPECT_EQ(cuda_.counters().bytes_to_host, at);
}

TEST_P(FakeCudaBatches, ASourceThatMayBeReadOutOfOrderIsReadBeforeEarlierWork) {
  auto* const stream = cuda_.training_stream(0);
  void* const memory = device_memory(0, 10, 1);
  auto held = cuda_.hold(stream);
  cuda_.launch_fill(stream, memory, 10, std::byte{2});
  EXPECT_EQ(batch({host_.data()}, {memory}, {10}, stream, cudaMemcpySrcAccessOrderAny),
            cudaSuccess);
  held.release();
  cuda_.synchronise(stream);
  EXPECT_EQ(host_.data()[0], std::byte{1});
}

TEST_F(FakeCudaRules, ABatchIsRefusedInTheNullStreamOrWithoutAttributes) {
  auto* const stream = cuda_.training_stream(0);
  void* const memory = device_memory(0, 10, 1);
  EXPECT_EQ(batch({host_.data()}, {memory}, {10}, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(batch({}, {}, {}, stream), cudaErrorInvalidValue);
  EXPECT_EQ(batch({host_.data()}, {memory}, {0}, stream), cudaErrorInvalidValue);
  EXPECT_EQ(batch({host_.data()}, {memory}, {10}, stream, cudaMemcpySrcAccessOrderInvalid),
            cudaErrorInvalidValue);

  std::array<void*, 3> to = {host_.data(), host_.data() + 10, host_.data() + 20};
  std::array<const void*, 3> from = {memory, memory, memory};
  std::array<std::size_t, 3> sizes = {10, 10, 10};
  std::array<cudaMemcpyAttributes, 2> attributes{};
  for (auto& each : attributes) each.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  const auto with = [&](std::array<std::size_t, 2> first) {
    return api_.memcpy_batch_async(to.data(), from.data(), sizes.data(), 3, attributes.data(),
                                   first.data(), 2, stream);
  };
  EXPECT_EQ(with({0, 2}), cudaSuccess);
  EXPECT_EQ(with({1, 2}), cudaErrorInvalidValue);
  EXPECT_EQ(with({0, 0}), cudaErrorInvalidValue);
  EXPECT_EQ(with({0, 3}), cudaErrorInvalidValue);
  cuda_.synchronise(stream);
}

TEST_F(FakeCudaRules, CopiesAreCountedByDirection) {
  auto* const stream = cuda_.training_stream(0);
  void* const memory = device_memory(0, 100, 1);
  void* const other = device_memory(0, 100, 1);
  (void)copy(host_.data(), memory, 10, stream);
  (void)copy(memory, host_.data(), 20, stream);
  (void)copy(other, memory, 40, stream);
  cuda_.copy(stream, other, memory, 100);  // the training's own
  cuda_.synchronise(stream);
  const CudaCounters counted = cuda_.counters();
  EXPECT_EQ(counted.copies, 3u);
  EXPECT_EQ(counted.bytes_to_host, 10u);
  EXPECT_EQ(counted.bytes_to_device, 20u);
  EXPECT_EQ(counted.bytes_between_devices, 40u);
  EXPECT_EQ(counted.device_synchronisations, 0u);
}

TEST_F(FakeCudaRules, PinningAndTheNullStreamCountAsSynchronisations) {
  const auto after = [&](auto call) {
    cuda_.reset_counters();
    call();
    return cuda_.counters().device_synchronisations;
  };
  const Pages pages(kPage);
  void* allocated = nullptr;
  void* const memory = device_memory(0, 10, 1);
  auto* const stream = cuda_.training_stream(0);
  EXPECT_EQ(after([&] { (void)api_.host_register(pages.data(), kPage, 0); }), 1u);
  EXPECT_EQ(after([&] { (void)api_.host_unregister(pages.data()); }), 1u);
  EXPECT_EQ(after([&] { (void)api_.host_alloc(&allocated, 10, 0); }), 1u);
  EXPECT_EQ(after([&] { (void)api_.free_host(allocated); }), 1u);
  EXPECT_EQ(after([&] { (void)copy(host_.data(), memory, 10, nullptr); }), 1u);
  EXPECT_EQ(after([&] { (void)api_.stream_synchronize(nullptr); }), 1u);
  EXPECT_EQ(after([&] {
              (void)copy(host_.data(), memory, 10, stream);
              (void)api_.stream_synchronize(stream);
            }),
            0u);
}

}  // namespace
}  // namespace ckptring::test
