#include "support/allocation_meter.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {

thread_local bool counting = false;
thread_local std::ptrdiff_t now_held = 0;
thread_local std::ptrdiff_t most = 0;
thread_local std::size_t all = 0;

void* take(std::size_t size) {
  void* const memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  if (counting) {
    now_held += static_cast<std::ptrdiff_t>(::malloc_usable_size(memory));
    all += ::malloc_usable_size(memory);
    most = std::max(most, now_held);
  }
  return memory;
}

void give(void* memory) noexcept {
  if (counting && memory != nullptr) {
    now_held -= static_cast<std::ptrdiff_t>(::malloc_usable_size(memory));
  }
  std::free(memory);
}

}  // namespace

// The forms for arrays and without exceptions end in these.
void* operator new(std::size_t size) { return take(size); }
void operator delete(void* memory) noexcept { give(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { give(memory); }

namespace ckptring::test {

AllocationMeter::AllocationMeter() noexcept {
  now_held = 0;
  most = 0;
  all = 0;
  counting = true;
}
AllocationMeter::~AllocationMeter() { counting = false; }
std::size_t AllocationMeter::peak() const noexcept { return static_cast<std::size_t>(most); }
std::size_t AllocationMeter::total() const noexcept { return all; }
std::size_t AllocationMeter::held() const noexcept {
  return static_cast<std::size_t>(std::max<std::ptrdiff_t>(now_held, 0));
}

}  // namespace ckptring::test
