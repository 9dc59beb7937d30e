// One object that forked children share with their parent.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

namespace bench {

/// T must be at home in shared memory: no pointers to elsewhere, no locks of one process only.
template <class T>
class SharedObject {
 public:
  /// @throws std::system_error
  template <class... Arguments>
  explicit SharedObject(Arguments&&... arguments) {
    memory_ = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory_ == MAP_FAILED) {
      throw std::system_error(errno, std::generic_category(), "map shared memory");
    }
    object_ = new (memory_) T(std::forward<Arguments>(arguments)...);
  }
  ~SharedObject() {
    object_->~T();
    (void)::munmap(memory_, sizeof(T));
  }
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  T& operator*() const noexcept { return *object_; }
  T* operator->() const noexcept { return object_; }

 private:
  void* memory_ = nullptr;
  T* object_ = nullptr;
};

}  // namespace bench
