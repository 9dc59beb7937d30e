// Device memory of the stand-in for CUDA: apart from the host's.
#pragma once

#include "support/fake_cuda_guard.h"
#include "support/fake_cuda_streams.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace ckptring::test::fake_cuda {

/// The addresses that the host knows (and must not touch), and the same bytes where the stand-in
/// reaches them.
class DeviceRange {
 public:
  explicit DeviceRange(int device);
  ~DeviceRange();
  DeviceRange(const DeviceRange&) = delete;
  DeviceRange& operator=(const DeviceRange&) = delete;

  [[nodiscard]] bool contains(const void* address) const;
  /// Where the stand-in reaches what the host knows as `address`.
  [[nodiscard]] std::byte* bytes_at(const void* address) const;
  [[nodiscard]] std::byte* address(std::size_t offset) const { return addresses_ + offset; }
  /// What lies there, from now on, is its first `period` bytes again and again. Whole pages.
  void repeat(const std::byte* address, std::size_t bytes, std::size_t period) const;
  void give_back(const std::byte* address, std::size_t bytes) const;

 private:
  int fd_ = -1;
  std::byte* addresses_ = nullptr;
  std::byte* bytes_ = nullptr;
  std::optional<HostAccessGuard> guard_;
};

struct Allocation : Resource {
  Allocation(std::shared_ptr<DeviceRange> in, std::byte* address, std::size_t size);
  ~Allocation();
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  /// Where the stand-in reaches what the host knows as `address`.
  [[nodiscard]] std::byte* bytes_at(const void* address) const { return range->bytes_at(address); }
  [[nodiscard]] bool holds(const void* address, std::size_t size) const;

  const std::shared_ptr<DeviceRange> range;
  std::byte* const begin;  ///< as the host knows it
  const std::size_t bytes;
};

/// Of one device. An address is given out once, so that freed memory stays recognizable.
class DeviceMemory {
 public:
  explicit DeviceMemory(int device) : range_(std::make_shared<DeviceRange>(device)) {}

  [[nodiscard]] bool contains(const void* address) const { return range_->contains(address); }

  /// Filled with noise.  @throws std::bad_alloc
  std::shared_ptr<Allocation> allocate(std::size_t bytes) { return allocate(bytes, bytes); }
  /// Takes memory for `period` bytes only, whole pages, which it repeats.
  std::shared_ptr<Allocation> allocate_repeated(std::size_t bytes, std::size_t period);

  struct Found {
    std::shared_ptr<Allocation> allocation;  ///< the live one that holds all of it, or none
    std::string problem;                     ///< and why
  };
  [[nodiscard]] Found find(const void* address, std::size_t bytes) const;

  /// Ends the allocation that begins there, and returns it; none if there is no such. The bytes go
  /// when the last work that uses them has ended.
  std::shared_ptr<Allocation> free(const void* begin);

 private:
  std::shared_ptr<Allocation> allocate(std::size_t bytes, std::size_t filled);

  struct Block {
    std::size_t bytes = 0;
    std::shared_ptr<Allocation> live;  ///< none: freed
  };
  std::shared_ptr<DeviceRange> range_;
  std::size_t used_ = 0;
  std::map<const std::byte*, Block> blocks_;  ///< by their begin
};

}  // namespace ckptring::test::fake_cuda
