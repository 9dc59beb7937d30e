#include "os/clock.h"

#include <ctime>

namespace ckptring::os {
namespace {
constexpr double kLongestSeconds = 100.0 * 365 * 86400;
}

std::uint64_t monotonic_ns() noexcept {
  timespec now{};
  // Cannot fail: the clock exists on every Linux and the pointer is valid.
  (void)::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(now.tv_nsec);
}

double seconds_since(std::uint64_t start_ns) noexcept {
  const std::uint64_t now = monotonic_ns();
  return now > start_ns ? static_cast<double>(now - start_ns) * 1e-9 : 0.0;
}

std::uint64_t to_ns(double seconds) noexcept {
  if (!(seconds > 0)) return 0;
  if (seconds > kLongestSeconds) seconds = kLongestSeconds;
  return static_cast<std::uint64_t>(seconds * 1e9);
}

Deadline Deadline::after(double seconds) noexcept { return {monotonic_ns() + to_ns(seconds)}; }

}  // namespace ckptring::os
