// How much memory something takes at most, counted where all of it comes from: operator new.
// Link allocation_meter.cpp, which replaces it.
#pragma once

#include <cstddef>

namespace ckptring::test {

/// One at a time, and only for what this thread allocates meanwhile.
class AllocationMeter {
 public:
  AllocationMeter() noexcept;
  ~AllocationMeter();
  AllocationMeter(const AllocationMeter&) = delete;
  AllocationMeter& operator=(const AllocationMeter&) = delete;

  /// Bytes held at once, at most, since the meter was made.
  [[nodiscard]] std::size_t peak() const noexcept;
  /// Bytes allocated since then, whether or not they were given back.
  [[nodiscard]] std::size_t total() const noexcept;
  /// Bytes held now.
  [[nodiscard]] std::size_t held() const noexcept;
};

}  // namespace ckptring::test
