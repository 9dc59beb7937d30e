#include "support/fake_cuda_host_memory.h"

#include "base/align.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <utility>

namespace ckptring::test::fake_cuda {
namespace {

constexpr std::uintptr_t kPage = 4096;

std::uintptr_t page_of(const std::byte* address) {
  return reinterpret_cast<std::uintptr_t>(address) / kPage;
}

/// Pages are locked as a whole.
bool share_a_page(const PinnedRange& a, const PinnedRange& b) {
  return page_of(a.begin) <= page_of(b.begin + b.bytes - 1) &&
         page_of(b.begin) <= page_of(a.begin + a.bytes - 1);
}

/// Whether all pages of the range are mapped, and `of_page` is true of the state of each.
template <class OfPage>
bool all_pages(const void* begin, std::size_t bytes, OfPage&& of_page) {
  const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(begin) & ~(kPage - 1);
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(begin) + bytes;
  std::array<unsigned char, 4096> states{};
  for (std::uintptr_t at = first; at < end; at += states.size() * kPage) {
    const std::size_t size = std::min<std::size_t>(end - at, states.size() * kPage);
    if (::mincore(reinterpret_cast<void*>(at), size, states.data()) != 0) return false;
    const std::span known(states.data(), (size + kPage - 1) / kPage);
    if (!std::ranges::all_of(known, of_page)) return false;
  }
  return true;
}

}  // namespace

bool is_mapped(const void* begin, std::size_t bytes) {
  return all_pages(begin, bytes, [](unsigned char) { return true; });
}

bool is_populated(const void* begin, std::size_t bytes) {
  return all_pages(begin, bytes, [](unsigned char state) { return (state & 1) != 0; });
}

cudaError_t HostMemory::insert(std::shared_ptr<PinnedRange> range) {
  for (const auto& [begin, known] : ranges_) {
    if (share_a_page(*known, *range)) return cudaErrorHostMemoryAlreadyRegistered;
  }
  if (bytes_ > limit_ || range->bytes > limit_ - bytes_) return cudaErrorMemoryAllocation;
  bytes_ += range->bytes;
  const std::byte* const begin = range->begin;
  ranges_[begin] = std::move(range);
  return cudaSuccess;
}

cudaError_t HostMemory::add(void* begin, std::size_t bytes, int device, bool portable) {
  auto range = std::make_shared<PinnedRange>();
  range->begin = static_cast<const std::byte*>(begin);
  range->bytes = bytes;
  range->device = device;
  range->portable = portable;
  return insert(std::move(range));
}

cudaError_t HostMemory::allocate(void** begin, std::size_t bytes, int device, bool portable) {
  auto* const memory =
      static_cast<std::byte*>(std::aligned_alloc(kPage, base::align_up(bytes, kPage)));
  if (memory == nullptr) return cudaErrorMemoryAllocation;
  auto range = std::make_shared<PinnedRange>();
  range->allocated = {memory, std::free};
  range->begin = memory;
  range->bytes = bytes;
  range->device = device;
  range->portable = portable;
  const cudaError_t error = insert(std::move(range));
  if (error == cudaSuccess) *begin = memory;
  return error;
}

std::shared_ptr<PinnedRange> HostMemory::remove(const void* begin, bool allocated) {
  const auto found = ranges_.find(static_cast<const std::byte*>(begin));
  if (found == ranges_.end() || (found->second->allocated != nullptr) != allocated) return nullptr;
  auto range = std::move(found->second);
  ranges_.erase(found);
  bytes_ -= range->bytes;
  return range;
}

HostMemory::Found HostMemory::find(const void* begin, std::size_t bytes) const {
  const auto* const first = static_cast<const std::byte*>(begin);
  const auto* const end = first + bytes;
  auto next = ranges_.upper_bound(first);
  if (next != ranges_.begin()) {
    const auto& range = std::prev(next)->second;
    if (first < range->begin + range->bytes) {
      if (end <= range->begin + range->bytes) return {range, false};
      return {nullptr, true};
    }
  }
  return {nullptr, next != ranges_.end() && next->first < end};
}

}  // namespace ckptring::test::fake_cuda
