#include "support/fake_cuda_torch_memory.h"

#include "support/fake_cuda_torch.h"
#include "support/fake_cuda_torch_streams.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace ckptring::test {
namespace fake_cuda {
namespace {

std::atomic<unsigned> allocations_until_failure{0};  ///< 0: none fails

struct Block {
  std::uint64_t cuda = 0;  ///< the FakeCuda's id
  void* memory = nullptr;
  std::mutex mutex;
  std::vector<cudaStream_t> streams;  ///< that use it
};

void free_block(void* context) {
  const std::unique_ptr<Block> block(static_cast<Block*>(context));
  FakeCuda* const cuda = FakeCuda::current();
  if (cuda == nullptr || cuda->id() != block->cuda) return;  // it went with its FakeCuda
  cuda->device_free(block->memory, block->streams);
}

class DeviceAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    FakeCuda& cuda = living();
    const c10::Device device = current_device();
    if (bytes == 0) return {nullptr, nullptr, &c10::detail::deleteNothing, device};
    auto block = std::make_unique<Block>();
    block->cuda = cuda.id();
    try {
      if (is_due(allocations_until_failure)) throw std::bad_alloc();
      block->memory = cuda.device_alloc(device.index(), bytes);
    } catch (const std::bad_alloc&) {
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes,
                       " bytes.");
    }
    block->streams.push_back(current_handle(device));
    void* const memory = block->memory;
    return {memory, block.release(), &free_block, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    FakeCuda& cuda = living();
    cuda.copy(current_handle(current_device()), to, from, bytes);
  }
};

DeviceAllocator allocator;
const c10::AllocatorRegisterer<c10::kCUDA> registerer(&allocator);

void free_pinned(void* memory) {
  // Ends with its FakeCuda, if that has gone before.
  if (FakeCuda::current() != nullptr) (void)FakeCuda::runtime().free_host(memory);
}

class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &c10::detail::deleteNothing, c10::kCPU};
    void* memory = nullptr;
    const cudaError_t result =
        FakeCuda::runtime().host_alloc(&memory, bytes, cudaHostAllocPortable);
    TORCH_CHECK(result == cudaSuccess, "CUDA cannot allocate ", bytes, " bytes of pinned memory");
    return {memory, memory, &free_pinned, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

PinnedAllocator host_allocator;

}  // namespace

bool is_due(std::atomic<unsigned>& countdown) {
  unsigned left = countdown.load();
  while (left > 0 && !countdown.compare_exchange_weak(left, left - 1)) {
  }
  return left == 1;
}

c10::Allocator& pinned_allocator() { return host_allocator; }

c10::Allocator& device_allocator() { return allocator; }

void record_stream(const c10::DataPtr& memory, cudaStream_t stream) {
  if (memory.get() == nullptr) return;
  auto* const block = memory.cast_context<Block>(&free_block);
  if (block == nullptr) return;  // not ours
  const std::lock_guard lock(block->mutex);
  block->streams.push_back(stream);
}

}  // namespace fake_cuda

void fail_libtorch_allocation(unsigned nth) { fake_cuda::allocations_until_failure.store(nth); }

}  // namespace ckptring::test
