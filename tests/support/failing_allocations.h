// Memory that is refused to one thread, once. Link failing_allocations.cpp, which replaces operator
// new.
#pragma once

#include <cstddef>
#include <string>

namespace ckptring::test {

/// While one exists, the allocation number `nth`, from 0, of the threads of this name throws
/// std::bad_alloc. One at a time.
class FailingAllocation {
 public:
  FailingAllocation(const std::string& thread, std::size_t nth);
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;

  /// Whether it was asked for.
  [[nodiscard]] bool failed() const noexcept;
};

}  // namespace ckptring::test
