#include "support/fake_cuda.h"

#include "support/fake_cuda_rules.h"

#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::test {
namespace {

using FakeCudaPageable = FakeCudaSchedules;
FAKE_CUDA_SCHEDULES(FakeCudaPageable);

TEST(FakeCudaDeathTest, TheHostThatTouchesDeviceMemoryIsTold) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        FakeCuda cuda(2);
        auto* const memory = static_cast<char*>(cuda.device_alloc(1, 10));
        std::memset(memory, 0, 10);
      },
      "the host touched device memory at 0x[0-9a-f]+, which is in the memory of device 1, "
      "0x[0-9a-f]+ to 0x[0-9a-f]+");
}

TEST(FakeCudaDeathTest, FaultsElsewhereEndAsTheyAlwaysDid) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        (void)std::signal(SIGSEGV, [](int) {
          constexpr std::string_view kWords = "as always\n";
          (void)!::write(STDERR_FILENO, kWords.data(), kWords.size());
          ::_exit(1);
        });
        const FakeCuda cuda;
        Pages pages(kPage);
        (void)::mprotect(pages.data(), kPage, PROT_NONE);
        *static_cast<volatile std::byte*>(pages.data()) = std::byte{1};
      },
      "as always");
}

TEST(FakeCudaDeathTest, ACallWithoutAFakeCudaEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH((void)FakeCuda::runtime().host_unregister(nullptr),
               "cudaHostUnregister was called while there is no FakeCuda");
}

TEST_F(FakeCudaRules, DeviceMemoryIsFilledWithNoiseAndGivenOutOnce) {
  void* const first = cuda_.device_alloc(0, 10);
  EXPECT_NE(cuda_.read(first, 10), all(10, 0));
  cuda_.device_free(first);
  EXPECT_NE(cuda_.device_alloc(0, 10), first);
  EXPECT_EQ(cuda_.device_alloc(0, 0), nullptr);
}

TEST_F(FakeCudaRules, RepeatedMemoryHasTheSameBytesAgainAndAgain) {
  constexpr std::size_t kPeriod = 3 * 4096;
  constexpr std::size_t kBytes = 2 * kPeriod + 5'001;
  (void)cuda_.device_alloc(0, 10);  // not of a whole page
  auto* const memory = static_cast<std::byte*>(cuda_.device_alloc_repeated(0, kBytes, kPeriod));
  void* const neighbour = device_memory(0, 100, 9);
  std::vector<std::byte> period(kPeriod);
  for (std::size_t i = 0; i < kPeriod; ++i) period[i] = static_cast<std::byte>(i % 251);
  cuda_.write(memory, period);
  std::vector<std::byte> expected;
  while (expected.size() < kBytes) expected.insert(expected.end(), period.begin(), period.end());
  expected.resize(kBytes);
  EXPECT_EQ(cuda_.read(memory, kBytes), expected);
  EXPECT_THROW((void)cuda_.read(memory, kBytes + 1), std::out_of_range);
  EXPECT_EQ(cuda_.read(neighbour, 100), all(100, 9));
  cuda_.device_free(memory);
  EXPECT_EQ(cuda_.read(neighbour, 100), all(100, 9));
}

TEST_F(FakeCudaRules, FreedMemoryAndMemoryPastTheEndCannotBeCopied) {
  auto* const stream = cuda_.training_stream(0);
  auto* const memory = static_cast<std::byte*>(cuda_.device_alloc(0, 100));
  EXPECT_EQ(copy(host_.data(), memory + 50, 51, stream), cudaErrorInvalidValue);
  expect_violation("past the end");
  EXPECT_EQ(copy(memory + 300, host_.data(), 1, stream), cudaErrorInvalidValue);
  expect_violation("not in allocated device memory");
  cuda_.device_free(memory);
  EXPECT_EQ(copy(host_.data(), memory, 100, stream), cudaErrorInvalidValue);
  expect_violation("has been freed");
}

TEST_F(FakeCudaRules, AKernelCannotReachFreedMemory) {
  auto* const stream = cuda_.training_stream(0);
  void* const memory = cuda_.device_alloc(0, 10);
  auto held = cuda_.hold(stream);
  cuda_.launch(stream, [=](DeviceMemoryAccess& access) { access.at(memory, 10)[0] = {}; });
  cuda_.device_free(memory);
  held.release();
  cuda_.synchronise(stream);
  expect_violation("a kernel: an address is in device memory that has been freed");
}

TEST_F(LateFakeCuda, MemoryIsNotFreedWhilePendingWorkUsesIt) {
  auto* const stream = cuda_.training_stream(0);
  void* const memory = cuda_.device_alloc(0, 100);
  (void)copy(host_.data(), memory, 100, stream);
  cuda_.device_free(memory);
  expect_violation("device_free: pending work uses the memory");
  cuda_.synchronise(stream);
}

TEST_F(TwoFakeDevices, MemoryIsAllocatedOnTheCurrentDeviceAndGivenBackOnce) {
  (void)api_.set_device(1);
  void* memory = nullptr;
  EXPECT_EQ(api_.malloc(&memory, 1000), cudaSuccess);
  EXPECT_TRUE(cuda_.is_device_memory(memory));
  EXPECT_EQ(cuda_.allocated_bytes(), 1000u);
  auto* const stream = make_stream();
  EXPECT_EQ(copy(memory, device_memory(1, 10, 3), 10, stream), cudaSuccess);
  EXPECT_EQ(api_.stream_synchronize(stream), cudaSuccess);
  EXPECT_EQ(cuda_.read(memory, 10), all(10, 3));
  EXPECT_EQ(api_.free(memory), cudaSuccess);
  EXPECT_EQ(cuda_.counters().device_synchronisations, 1u);
  EXPECT_EQ(api_.free(memory), cudaErrorInvalidValue);
  EXPECT_EQ(api_.free(nullptr), cudaSuccess);
  EXPECT_EQ(api_.stream_destroy(stream), cudaSuccess);
  cuda_.limit_allocated_bytes(100);
  EXPECT_EQ(api_.malloc(&memory, 101), cudaErrorMemoryAllocation);
  EXPECT_EQ(memory, nullptr);
}

TEST_F(LateFakeCuda, AllocatedMemoryIsNotFreedWhilePendingWorkUsesIt) {
  auto* const stream = cuda_.training_stream(0);
  void* memory = nullptr;
  (void)api_.malloc(&memory, 1000);
  (void)copy(host_.data(), memory, 1000, stream);
  (void)api_.free(memory);
  expect_violation("cudaFree: pending work uses the memory");
  cuda_.synchronise(stream);
}

TEST_F(LateFakeCuda, MemoryIsFreedInTheOrderOfAStream) {
  auto* const training = cuda_.training_stream(0);
  auto* const copies = cuda_.training_stream(0);
  auto* const read = make_event();
  const auto start_copy = [&] {
    void* const memory = device_memory(0, 100, 7);
    (void)copy(host_.data(), memory, 100, copies);
    (void)api_.event_record(read, copies);
    return memory;
  };
  void* memory = start_copy();
  cuda_.launch_fill(training, memory, 100, std::byte{1});
  cuda_.device_free(memory, {{training}});
  expect_violation("pending work uses the memory");  // the copy does not come before it

  memory = start_copy();
  (void)api_.stream_wait_event(training, read, 0);
  cuda_.launch_fill(training, memory, 100, std::byte{1});
  cuda_.device_free(memory, {{training}});
  cuda_.synchronise(training);
  EXPECT_EQ(host_.data()[0], std::byte{7});
  (void)api_.event_destroy(read);
}

TEST_F(FakeCudaRules, RegisteredRangesMayNotShareAPage) {
  const Pages pages(4 * kPage);
  EXPECT_EQ(api_.host_register(pages.data() + kPage, kPage + 1, 0), cudaSuccess);
  EXPECT_EQ(api_.host_register(pages.data(), 2 * kPage, 0), cudaErrorHostMemoryAlreadyRegistered);
  EXPECT_EQ(api_.host_register(pages.data() + 2 * kPage + 100, 10, 0),
            cudaErrorHostMemoryAlreadyRegistered);
  EXPECT_EQ(api_.host_register(pages.data(), kPage, 0), cudaSuccess);
  EXPECT_EQ(cuda_.counters().registrations, 2u);
  EXPECT_EQ(cuda_.counters().registered_bytes, 2 * kPage + 1);
  EXPECT_EQ(cuda_.pinned_bytes(), host_.size() + 2 * kPage + 1);
  EXPECT_EQ(api_.host_unregister(pages.data() + kPage), cudaSuccess);
  EXPECT_EQ(api_.host_unregister(pages.data()), cudaSuccess);
}

TEST_F(FakeCudaRules, OnlyTheBeginOfRegisteredMemoryCanBeUnregistered) {
  EXPECT_EQ(api_.host_unregister(host_.data() + kPage), cudaErrorHostMemoryNotRegistered);
  void* allocated = nullptr;
  ASSERT_EQ(api_.host_alloc(&allocated, 10, 0), cudaSuccess);
  EXPECT_EQ(api_.host_unregister(allocated), cudaErrorHostMemoryNotRegistered);
  EXPECT_EQ(api_.free_host(host_.data()), cudaErrorInvalidValue);
  EXPECT_EQ(api_.free_host(allocated), cudaSuccess);
}

TEST_F(FakeCudaRules, WhatCannotBeRegisteredIsRefused) {
  Pages pages(kPage);
  EXPECT_EQ(api_.host_register(nullptr, kPage, 0), cudaErrorInvalidValue);
  EXPECT_EQ(api_.host_register(pages.data(), 0, 0), cudaErrorInvalidValue);
  EXPECT_EQ(api_.host_register(pages.data(), kPage, 0x100), cudaErrorInvalidValue);
  EXPECT_EQ(api_.host_register(cuda_.device_alloc(0, 10), 10, 0), cudaErrorInvalidValue);
  EXPECT_EQ(api_.host_register(pages.data(), kPage, cudaHostRegisterReadOnly),
            cudaErrorNotSupported);
  std::byte* const gone = pages.data();
  pages.unmap();
  EXPECT_EQ(api_.host_register(gone, kPage, 0), cudaErrorInvalidValue);
}

TEST_F(FakeCudaRules, PinnedMemoryIsLimited) {
  const Pages pages(2 * kPage);
  cuda_.limit_pinned_bytes(cuda_.pinned_bytes() + kPage);
  EXPECT_EQ(api_.host_register(pages.data(), 2 * kPage, 0), cudaErrorMemoryAllocation);
  EXPECT_EQ(api_.host_register(pages.data(), kPage, 0), cudaSuccess);
  void* allocated = nullptr;
  EXPECT_EQ(api_.host_alloc(&allocated, 1, 0), cudaErrorMemoryAllocation);
  EXPECT_EQ(api_.host_unregister(pages.data()), cudaSuccess);
}

TEST_P(FakeCudaPageable, ACopyIntoMemoryThatIsNotPinnedIsSynchronous) {
  const Pages pages(kPage);
  auto* const stream = cuda_.training_stream(0);
  void* const memory = device_memory(0, kPage, 1);
  cuda_.launch_fill(stream, memory, kPage, std::byte{2});
  EXPECT_EQ(copy(pages.data(), memory, kPage, stream), cudaSuccess);
  EXPECT_TRUE(pages.hold(2));
  EXPECT_EQ(cuda_.counters().pageable_copies, 1u);
}

TEST_F(LateFakeCuda, ACopyIntoPinnedMemoryIsNot) {
  auto* const stream = cuda_.training_stream(0);
  host_.fill(5);
  EXPECT_EQ(copy(host_.data(), device_memory(0, kPage, 1), kPage, stream), cudaSuccess);
  EXPECT_EQ(host_.data()[0], std::byte{5});
  EXPECT_EQ(cuda_.counters().pageable_copies, 0u);
  cuda_.synchronise(stream);
  EXPECT_EQ(host_.data()[0], std::byte{1});
}

TEST_F(TwoFakeDevices, OnlyPortableMemoryIsPinnedForOtherDevices) {
  const Pages pages(kPage);
  ASSERT_EQ(api_.host_register(pages.data(), kPage, cudaHostRegisterDefault), cudaSuccess);
  EXPECT_EQ(copy(pages.data(), device_memory(0, kPage, 1), kPage, cuda_.training_stream(0)),
            cudaSuccess);
  EXPECT_EQ(copy(host_.data(), device_memory(1, kPage, 1), kPage, cuda_.training_stream(1)),
            cudaSuccess);
  EXPECT_EQ(cuda_.counters().pageable_copies, 0u);
  EXPECT_EQ(copy(pages.data(), device_memory(1, kPage, 1), kPage, cuda_.training_stream(1)),
            cudaSuccess);
  EXPECT_EQ(cuda_.counters().pageable_copies, 1u);
  EXPECT_EQ(cuda_.finish(), std::vector<std::string>(2, "registered memory was not unregistered"));
  EXPECT_EQ(api_.host_unregister(pages.data()), cudaSuccess);
}

TEST_F(FakeCudaRules, ACopyOverTwoRegistrationsIsRefused) {
  const Pages pages(3 * kPage);
  ASSERT_EQ(api_.host_register(pages.data(), kPage, 0), cudaSuccess);
  ASSERT_EQ(api_.host_register(pages.data() + kPage, kPage, 0), cudaSuccess);
  auto* const stream = cuda_.training_stream(0);
  void* const memory = device_memory(0, 2 * kPage, 1);
  EXPECT_EQ(copy(pages.data() + 1, memory, kPage, stream), cudaErrorInvalidValue);
  EXPECT_EQ(copy(memory, pages.data() + 2 * kPage - 1, 2, stream), cudaErrorInvalidValue);
  EXPECT_EQ(cuda_.counters().straddling_copies, 2u);
  EXPECT_EQ(cuda_.counters().copies, 0u);
  (void)api_.host_unregister(pages.data());
  (void)api_.host_unregister(pages.data() + kPage);
}

TEST_F(LateFakeCuda, MemoryIsNotUnpinnedWhilePendingWorkUsesIt) {
  Pages pages(kPage);
  ASSERT_EQ(api_.host_register(pages.data(), kPage, 0), cudaSuccess);
  void* allocated = nullptr;
  ASSERT_EQ(api_.host_alloc(&allocated, 10, 0), cudaSuccess);
  auto* const stream = cuda_.training_stream(0);
  (void)copy(pages.data(), device_memory(0, 10, 1), 10, stream);
  (void)copy(allocated, device_memory(0, 10, 1), 10, stream);
  EXPECT_EQ(api_.host_unregister(pages.data()), cudaSuccess);
  expect_violation("cudaHostUnregister: pending work uses the memory");
  EXPECT_EQ(api_.free_host(allocated), cudaSuccess);
  expect_violation("cudaFreeHost: pending work uses the memory");
  pages.unmap();  // nobody writes there
}

TEST_F(FakeCudaRules, MemoryIsUnregisteredBeforeItIsUnmapped) {
  Pages pages(kPage);
  ASSERT_EQ(api_.host_register(pages.data(), kPage, 0), cudaSuccess);
  std::byte* const gone = pages.data();
  pages.unmap();
  EXPECT_EQ(api_.host_unregister(gone), cudaSuccess);
  expect_violation("the memory was unmapped before");
}

TEST_F(FakeCudaRules, WhatIsNotGivenBackIsAViolation) {
  auto* const stream = make_stream();
  auto* const event = make_event();
  void* allocated = nullptr;
  ASSERT_EQ(api_.host_alloc(&allocated, 10, 0), cudaSuccess);
  void* on_device = nullptr;
  ASSERT_EQ(api_.malloc(&on_device, 10), cudaSuccess);
  (void)cuda_.training_stream(0);
  EXPECT_THAT(cuda_.finish(),
              testing::UnorderedElementsAre(
                  "a stream was not destroyed", "an event was not destroyed",
                  "memory of cudaMalloc was not freed", "memory of cudaHostAlloc was not freed",
                  "registered memory was not unregistered"));
  (void)api_.free(on_device);
  (void)api_.free_host(allocated);
  (void)api_.event_destroy(event);
  (void)api_.stream_destroy(stream);
}

}  // namespace
}  // namespace ckptring::test
