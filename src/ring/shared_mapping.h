// A shared mapping of a memory file, the only user of Boost.Interprocess.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace ckptring::ring {

class SharedMapping {
 public:
  /// Maps the whole of `fd` for reading and writing, 2 MiB-aligned, not inherited by forked
  /// children, and no part of core dumps.  @throws Error
  SharedMapping(int fd, std::uint64_t bytes);
  ~SharedMapping();
  SharedMapping(SharedMapping&&) noexcept;
  SharedMapping& operator=(SharedMapping&&) noexcept;

  [[nodiscard]] std::byte* data() const noexcept;
  [[nodiscard]] std::uint64_t size() const noexcept;

 private:
  struct Region;
  std::unique_ptr<Region> region_;
};

}  // namespace ckptring::ring
