// Copying from one kind of memory into host memory. Read next: host_copy_engine.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>

namespace ckptring::stage {

/// A run of bytes.
struct Copy {
  std::byte* to;
  const std::byte* from;
  std::uint64_t size;
  std::uint32_t source;  ///< index of what it is a part of; for messages
};

/// Told once, by any thread, that no copy of a batch will read or write any more. Without a
/// failure all bytes are there, and visible to whoever synchronises with the calling thread.
using CopiesEnded = std::function<void(std::exception_ptr failure)>;

class CopyEngine {
 public:
  virtual ~CopyEngine() = default;

  /// Begins to copy. `copies` is not looked at any more when this returns; the memory is, until
  /// `ended` is called, maybe before this returns. Batches begin in the order of the calls.
  /// Failures come through `ended`, which must not throw; what is thrown from here was met before
  /// anything was begun, and `ended` is not called.
  virtual void copy(std::span<const Copy> copies, CopiesEnded ended) = 0;
};

}  // namespace ckptring::stage
