// Memory that is refused to some threads, for a while. Link failing_allocations.cpp, which replaces
// operator new.
#pragma once

#include <cstddef>
#include <string>

namespace ckptring::test {

/// While one exists, no allocation of its thread fails, nor counts: what a stand-in allocates.
class NotFailing {
 public:
  NotFailing() noexcept { ++depth(); }
  ~NotFailing() { --depth(); }
  NotFailing(const NotFailing&) = delete;
  NotFailing& operator=(const NotFailing&) = delete;

  /// How many there are in this thread.
  static int& depth() noexcept {
    static thread_local int number = 0;
    return number;
  }
};

/// While one exists, the allocation number `nth`, from 0, and so many in all, of the threads whose
/// names begin so throw std::bad_alloc. One at a time.
class FailingAllocation {
 public:
  FailingAllocation(const std::string& threads, std::size_t nth, std::size_t count = 1);
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;

  /// Whether it was asked for.
  [[nodiscard]] bool failed() const noexcept;
};

}  // namespace ckptring::test
