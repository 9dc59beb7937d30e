// What the tests of the stand-in for CUDA have in common.
#pragma once

#include "support/checked_fake_cuda.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::test {

inline constexpr std::size_t kPage = 4096;

inline std::vector<std::byte> all(std::size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

/// Page-aligned host memory, mapped on its own.
class Pages {
 public:
  explicit Pages(std::size_t bytes) : bytes_(bytes) {
    void* const at =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    begin_ = static_cast<std::byte*>(at);
  }
  ~Pages() { unmap(); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  void unmap() {
    if (begin_ != nullptr) (void)::munmap(begin_, bytes_);
    begin_ = nullptr;
  }
  [[nodiscard]] std::byte* data() const { return begin_; }
  [[nodiscard]] std::size_t size() const { return bytes_; }
  /// Whether `bytes` from `offset` on are this value.
  [[nodiscard]] bool hold(int value, std::size_t offset, std::size_t bytes) const {
    const std::byte* const from = begin_ + offset;
    return std::all_of(from, from + bytes,
                       [=](std::byte byte) { return byte == static_cast<std::byte>(value); });
  }
  [[nodiscard]] bool hold(int value) const { return hold(value, 0, bytes_); }
  void fill(int value) { std::fill(begin_, begin_ + bytes_, static_cast<std::byte>(value)); }

 private:
  std::byte* begin_;
  std::size_t bytes_;
};

/// One device, and 64 KiB of pinned memory.
class FakeCudaRules : public testing::Test {
 public:
  ~FakeCudaRules() override { (void)api_.host_unregister(host_.data()); }

 protected:
  explicit FakeCudaRules(int devices = 1, Schedule schedule = Schedule::eager())
      : cuda_(devices, schedule) {
    EXPECT_EQ(api_.host_register(host_.data(), host_.size(), cudaHostRegisterPortable),
              cudaSuccess);
    cuda_.reset_counters();
  }

  [[nodiscard]] cudaStream_t make_stream(unsigned flags = cudaStreamNonBlocking) const {
    cudaStream_t made = nullptr;
    EXPECT_EQ(api_.stream_create_with_flags(&made, flags), cudaSuccess);
    return made;
  }
  [[nodiscard]] cudaEvent_t make_event(unsigned flags = cudaEventBlockingSync |
                                                        cudaEventDisableTiming) const {
    cudaEvent_t made = nullptr;
    EXPECT_EQ(api_.event_create_with_flags(&made, flags), cudaSuccess);
    return made;
  }
  void* device_memory(int device, std::size_t bytes, int value) {
    void* const made = cuda_.device_alloc(device, bytes);
    cuda_.write(made, all(bytes, value));
    return made;
  }
  cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaStream_t stream) const {
    return api_.memcpy_async(to, from, bytes, cudaMemcpyDefault, stream);
  }
  cudaError_t batch(std::vector<void*> to, std::vector<const void*> from,
                    std::vector<std::size_t> sizes, cudaStream_t stream,
                    cudaMemcpySrcAccessOrder order = cudaMemcpySrcAccessOrderStream) const {
    cudaMemcpyAttributes attributes{};
    attributes.srcAccessOrder = order;
    std::size_t first = 0;
    return api_.memcpy_batch_async(to.data(), from.data(), sizes.data(), sizes.size(), &attributes,
                                   &first, 1, stream);
  }
  void expect_violation(const std::string& words) {
    EXPECT_THAT(cuda_.take_violations(), testing::ElementsAre(testing::HasSubstr(words)));
  }

  const stage::CudaRuntime& api_ = FakeCuda::runtime();
  Pages host_{64 << 10};
  std::vector<char> ran_;  ///< by kernels, some of them at the very end
  CheckedFakeCuda cuda_;
};

class FakeCudaSchedules : public FakeCudaRules, public testing::WithParamInterface<Schedule> {
 protected:
  FakeCudaSchedules() : FakeCudaRules(2, GetParam()) {}
};

/// Its suites run under each schedule.
#define FAKE_CUDA_SCHEDULES(suite)                                                         \
  INSTANTIATE_TEST_SUITE_P(All, suite, testing::ValuesIn(ckptring::test::all_schedules()), \
                           [](const auto& test) { return test.param.name(); })

class TwoFakeDevices : public FakeCudaRules {
 protected:
  TwoFakeDevices() : FakeCudaRules(2) {}
};

class LateFakeCuda : public FakeCudaRules {
 protected:
  LateFakeCuda() : FakeCudaRules(1, Schedule::late()) {}
};

}  // namespace ckptring::test
