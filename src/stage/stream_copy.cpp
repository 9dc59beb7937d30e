#include "stage/stream_copy.h"

#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>

#include <cstdint>
#endif

namespace ckptring::stage {

#if defined(__x86_64__)

namespace {

constexpr std::size_t kLine = 64;
/// Below this, the ends that do not fill a cache line cost more than is saved.
constexpr std::size_t kWorthIt = 1024;

}  // namespace

void stream_copy(std::byte* to, const std::byte* from, std::size_t size) noexcept {
  if (size < kWorthIt) {
    // Both may be null if there is nothing to copy, which memcpy does not allow.
    if (size > 0) std::memcpy(to, from, size);
    return;
  }
  const std::size_t head = -reinterpret_cast<std::uintptr_t>(to) % kLine;
  std::memcpy(to, from, head);
  to += head;
  from += head;
  size -= head;
  for (; size >= kLine; size -= kLine, to += kLine, from += kLine) {
    const auto* const source = reinterpret_cast<const __m128i*>(from);
    auto* const line = reinterpret_cast<__m128i*>(to);
    const __m128i a = _mm_loadu_si128(source);
    const __m128i b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2);
    const __m128i d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(line, a);
    _mm_stream_si128(line + 1, b);
    _mm_stream_si128(line + 2, c);
    _mm_stream_si128(line + 3, d);
  }
  std::memcpy(to, from, size);
}

void order_streamed() noexcept { _mm_sfence(); }

#else

void stream_copy(std::byte* to, const std::byte* from, std::size_t size) noexcept {
  if (size > 0) std::memcpy(to, from, size);
}

void order_streamed() noexcept {}

#endif

}  // namespace ckptring::stage
