// Monotonic time, comparable between processes of one machine.
#pragma once

#include <cstdint>

namespace ckptring::os {

/// CLOCK_MONOTONIC in nanoseconds.
[[nodiscard]] std::uint64_t monotonic_ns() noexcept;

/// Seconds from `start_ns` until now.
[[nodiscard]] double seconds_since(std::uint64_t start_ns) noexcept;

/// `seconds` in nanoseconds; negative counts as 0, more than 100 years as 100 years.
[[nodiscard]] std::uint64_t to_ns(double seconds) noexcept;

/// A point in monotonic time at which a wait ends.
struct Deadline {
  std::uint64_t ns;

  static Deadline after(double seconds) noexcept;
  static Deadline never() noexcept { return {UINT64_MAX}; }
  [[nodiscard]] bool passed() const noexcept { return monotonic_ns() >= ns; }
  [[nodiscard]] Deadline earlier(Deadline other) const noexcept {
    return {ns < other.ns ? ns : other.ns};
  }
};

}  // namespace ckptring::os
