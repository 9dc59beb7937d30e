// A memcpy past the caches.
#pragma once

#include <cstddef>

namespace ckptring::stage {

/// Copies `size` bytes between ranges that do not overlap. What is staged is next read by another
/// process, and by then long out of this core's caches: stores that go past them spare reading each
/// line before it is overwritten, and leave the training loop's own data in the cache.
///
/// Such stores may become visible later than stores that follow them in the program:
/// `order_streamed` comes before anything that tells others of the copy.
void stream_copy(std::byte* to, const std::byte* from, std::size_t size) noexcept;

/// Every stream_copy of this thread so far is visible before any of its later stores.
void order_streamed() noexcept;

}  // namespace ckptring::stage
