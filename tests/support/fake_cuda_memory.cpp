#include "support/fake_cuda_memory.h"

#include "base/align.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

namespace ckptring::test::fake_cuda {
namespace {

/// Addresses of a device; memory is taken only for what is allocated.
constexpr std::size_t kRange = std::size_t{16} << 30;
constexpr std::size_t kAlignment = 512;  // as libtorch's allocator
constexpr std::size_t kPage = 4096;
constexpr int kNoise = 0xA5;

/// At `address`, or anywhere if it is null.
std::byte* map(std::byte* address, std::size_t bytes, int protection, int fd, std::size_t offset) {
  const int flags = MAP_SHARED | MAP_NORESERVE | (address == nullptr ? 0 : MAP_FIXED);
  void* const at = ::mmap(address, bytes, protection, flags, fd, static_cast<::off_t>(offset));
  if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
  return static_cast<std::byte*>(at);
}

}  // namespace

DeviceRange::DeviceRange(int device) : fd_(::memfd_create("fake_cuda", MFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
  if (::ftruncate(fd_, kRange) != 0) {
    throw std::system_error(errno, std::generic_category(), "ftruncate");
  }
  addresses_ = map(nullptr, kRange, PROT_NONE, fd_, 0);
  bytes_ = map(nullptr, kRange, PROT_READ | PROT_WRITE, fd_, 0);
  guard_.emplace(device, addresses_, kRange);
}

DeviceRange::~DeviceRange() {
  guard_.reset();
  (void)::munmap(addresses_, kRange);
  (void)::munmap(bytes_, kRange);
  (void)::close(fd_);
}

bool DeviceRange::contains(const void* address) const {
  return address >= addresses_ && address < addresses_ + kRange;
}

std::byte* DeviceRange::bytes_at(const void* address) const {
  return bytes_ + (static_cast<const std::byte*>(address) - addresses_);
}

void DeviceRange::repeat(const std::byte* address, std::size_t bytes, std::size_t period) const {
  const auto offset = static_cast<std::size_t>(address - addresses_);
  const std::size_t pages = base::align_up(bytes, kPage);
  for (std::size_t at = period; at < pages; at += period) {
    (void)map(bytes_ + offset + at, std::min(period, pages - at), PROT_READ | PROT_WRITE, fd_,
              offset);
  }
}

void DeviceRange::give_back(const std::byte* address, std::size_t bytes) const {
  // Whole pages only: the others hold neighbours.
  const auto offset = static_cast<std::size_t>(address - addresses_);
  const std::size_t begin = base::align_up(offset, kPage);
  const std::size_t end = (offset + bytes) & ~(kPage - 1);
  if (begin < end) (void)::madvise(bytes_ + begin, end - begin, MADV_REMOVE);
}

Allocation::Allocation(std::shared_ptr<DeviceRange> in, std::byte* address, std::size_t size)
    : range(std::move(in)), begin(address), bytes(size) {}

Allocation::~Allocation() { range->give_back(begin, bytes); }

bool Allocation::holds(const void* address, std::size_t size) const {
  const auto* const at = static_cast<const std::byte*>(address);
  return at >= begin && at <= begin + bytes && size <= static_cast<std::size_t>(begin + bytes - at);
}

std::shared_ptr<Allocation> DeviceMemory::allocate_repeated(std::size_t bytes, std::size_t period) {
  used_ = base::align_up(used_, kPage);
  auto made = allocate(bytes, std::min(bytes, period));
  range_->repeat(made->begin, bytes, period);
  used_ = base::align_up(used_, kPage);  // nobody else lies in its last page
  return made;
}

std::shared_ptr<Allocation> DeviceMemory::allocate(std::size_t bytes, std::size_t filled) {
  if (bytes > kRange || used_ + base::align_up(bytes, kAlignment) > kRange) throw std::bad_alloc();
  auto made = std::make_shared<Allocation>(range_, range_->address(used_), bytes);
  std::memset(made->bytes_at(made->begin), kNoise, filled);
  used_ += base::align_up(bytes, kAlignment);
  blocks_[made->begin] = {bytes, made};
  return made;
}

DeviceMemory::Found DeviceMemory::find(const void* address, std::size_t bytes) const {
  auto found = blocks_.upper_bound(static_cast<const std::byte*>(address));
  if (found == blocks_.begin()) return {nullptr, "is not in allocated device memory"};
  const auto& [begin, block] = *--found;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - begin);
  if (offset >= std::max<std::size_t>(block.bytes, 1)) {
    return {nullptr, "is not in allocated device memory"};
  }
  if (block.live == nullptr) return {nullptr, "is in device memory that has been freed"};
  if (!block.live->holds(address, bytes)) return {nullptr, "reaches past the end of its memory"};
  return {block.live, ""};
}

std::shared_ptr<Allocation> DeviceMemory::free(const void* begin) {
  const auto found = blocks_.find(static_cast<const std::byte*>(begin));
  if (found == blocks_.end()) return nullptr;
  return std::exchange(found->second.live, nullptr);
}

}  // namespace ckptring::test::fake_cuda
