// Asking the processor early for what a walk over a state is about to read. The objects of a state
// lie all over memory, and since the last save a training step has pushed them out of the caches:
// without this, most of a walk over many small tensors is waiting for memory.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

namespace ckptring::torch_state {

inline void fetch(const void* object, std::size_t bytes) noexcept {
  constexpr std::size_t kLine = 64;
  const auto* const first = static_cast<const char*>(object);
  for (std::size_t at = 0; at < bytes; at += kLine) __builtin_prefetch(first + at);
}

/// The object that a value points to. Reads nothing but the value itself.
inline void fetch_object(const c10::IValue& value) {
  if (value.isTensor()) {
    fetch(value.unsafeToTensorImpl(), sizeof(c10::TensorImpl));
  } else if (value.isString()) {
    fetch(&value.toStringRef(), sizeof(std::string));
  }
}

/// What that object points to in turn. Reads the object.
inline void fetch_behind(const c10::IValue& value) {
  if (value.isTensor()) {
    const c10::TensorImpl& tensor = *value.unsafeToTensorImpl();
    fetch(tensor.unsafe_storage().unsafeGetStorageImpl(), sizeof(c10::StorageImpl));
    // Where a version is counted is nobody's business but the pointer's that makes up the whole of
    // this class; it is asked for here, and read by the class alone.
    const void* counter = nullptr;
    static_assert(sizeof(c10::VariableVersion) == sizeof counter);
    std::memcpy(&counter, static_cast<const void*>(&tensor.version_counter()), sizeof counter);
    fetch(counter, 1);
  } else if (value.isString()) {
    const std::string& text = value.toStringRef();
    fetch(text.data(), std::min<std::size_t>(text.size(), 256));
  }
}

/// Goes ahead of a loop over a container: `step` before each turn of the loop.
/// @tparam ForEach calls a function with each IValue that the loop reads at an iterator
template <class Iterator, class ForEach>
class Lookahead {
 public:
  Lookahead(Iterator begin, Iterator end, ForEach for_each)
      : objects_(begin), behind_(begin), end_(end), for_each_(for_each) {
    for (int i = 0; i < kDistance; ++i) fetch_next_objects();
    for (int i = 0; i < kDistance; ++i) step();
  }

  void step() {
    fetch_next_objects();
    if (behind_ == end_) return;
    for_each_(behind_, fetch_behind);
    ++behind_;
  }

 private:
  /// Turns: more than it takes to get a line from memory, and few enough that the lines are still
  /// in the caches when their turn comes.
  static constexpr int kDistance = 8;

  void fetch_next_objects() {
    if (objects_ == end_) return;
    for_each_(objects_, fetch_object);
    ++objects_;
  }

  Iterator objects_;  ///< twice the distance ahead of the loop
  Iterator behind_;   ///< the distance ahead: what it reads was fetched by then
  const Iterator end_;
  ForEach for_each_;
};

}  // namespace ckptring::torch_state
