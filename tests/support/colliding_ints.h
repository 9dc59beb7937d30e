// Ints that want the same slot of libtorch's dict.
#pragma once

#include <cstdint>

namespace ckptring::test {

/// What libtorch's dict multiplies hashes by; the upper bits are the slot.
inline constexpr std::uint64_t kFibonacci = 11400714819323198485U;

/// Different for each `i`, and times kFibonacci that is `i`: the first slot, however large the
/// dict.
constexpr std::uint64_t colliding_int(std::uint64_t i) noexcept {
  std::uint64_t inverse = kFibonacci;  // Newton's method, modulo 2^64
  for (int round = 0; round < 6; ++round) inverse *= 2 - kFibonacci * inverse;
  return i * inverse;
}
static_assert(colliding_int(7) * kFibonacci == 7);

}  // namespace ckptring::test
