#include "support/failing_allocations.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

constexpr std::size_t kLongestName = 16;  // with its NUL, as the kernel keeps it
std::array<char, kLongestName> thread_name{};
std::atomic<std::int64_t> left{0};
std::atomic<std::int64_t> in_a_row{1};
std::atomic<bool> armed{false};
std::atomic<bool> has_failed{false};

bool is_to_fail() noexcept {
  if (!armed.load(std::memory_order_acquire)) return false;  // with the name
  if (ckptring::test::NotFailing::depth() > 0) return false;
  std::array<char, kLongestName> own{};
  if (::pthread_getname_np(::pthread_self(), own.data(), own.size()) != 0) return false;
  if (std::strncmp(own.data(), thread_name.data(), std::strlen(thread_name.data())) != 0) {
    return false;
  }
  const std::int64_t before = left.fetch_sub(1);
  if (before > 0 || before <= -in_a_row) return false;
  has_failed = true;
  return true;
}

// What a thread takes and gives back at once it asked for only to know whether it is there: small
// things find room in it then, as on any heap. So it is here, where one thread is refused memory;
// in reality another one may take it between such a question and libtorch's own allocation. That
// window remains.
constexpr std::size_t kLarge = 1024;
constexpr std::size_t kRoom = 1024;
thread_local void* last_taken = nullptr;  // if it was large
thread_local std::size_t room = 0;

void* take(std::size_t size) {
  const bool fits = size <= room;
  room = fits ? room - size : 0;
  void* const memory = !fits && is_to_fail() ? nullptr : std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  last_taken = size > kLarge ? memory : nullptr;
  return memory;
}
void give_back(void* memory) noexcept {
  if (memory != nullptr && memory == last_taken) room = kRoom;
  last_taken = nullptr;
  std::free(memory);
}

}  // namespace

// The forms for arrays and without exceptions end in these.
void* operator new(std::size_t size) { return take(size); }
void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { give_back(memory); }

namespace ckptring::test {

FailingAllocation::FailingAllocation(const std::string& threads, std::size_t nth,
                                     std::size_t count) {
  thread_name = {};
  threads.copy(thread_name.data(), kLongestName - 1);
  left = static_cast<std::int64_t>(nth);
  in_a_row = static_cast<std::int64_t>(count);
  has_failed = false;
  armed.store(true, std::memory_order_release);
}
FailingAllocation::~FailingAllocation() { armed = false; }
bool FailingAllocation::failed() const noexcept { return has_failed; }

}  // namespace ckptring::test
