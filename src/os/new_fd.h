// How this library makes descriptors: never as 0, 1 or 2.
//
// These numbers are the program's standard input, output and error also where it was started
// without them, or has closed them. A new descriptor gets the lowest free number: what the program
// prints would go into a checkpoint, or into the ring.
#pragma once

#include "os/unique_fd.h"

#include <array>
#include <utility>

namespace ckptring::os {

/// While one exists, no new descriptor becomes 0, 1 or 2: those that are closed are taken by
/// something that can be neither read nor written. The kernel cannot be asked for a number.
///
/// What remains, and only where one of the three is closed: a thread of the program that opens a
/// file in just that moment, in the belief that it gets such a number, does not get it; and if one
/// of the three is closed in between, by the program or by another thread's object of this kind,
/// new_fd has to move what it made, and for that moment what is printed goes there.
class StandardNumbersTaken {
 public:
  StandardNumbersTaken() noexcept;
  /// errno stays as it is.
  ~StandardNumbersTaken();
  StandardNumbersTaken(const StandardNumbersTaken&) = delete;
  StandardNumbersTaken& operator=(const StandardNumbersTaken&) = delete;

 private:
  static constexpr std::size_t kNumbers = 3;
  std::array<int, kNumbers> taken_{};
  std::size_t count_ = 0;
};

/// `fd` itself if it is 3 or more, else moved there, close-on-exec. Empty, with errno, if that
/// fails or `fd` is negative.
[[nodiscard]] UniqueFd above_standard_numbers(int fd) noexcept;

/// The descriptor that `make()` returns, as 3 or more. Empty, with errno, if `make` returns a
/// negative number.
template <class Make>
[[nodiscard]] UniqueFd new_fd(Make&& make) {
  const StandardNumbersTaken taken;
  return above_standard_numbers(std::forward<Make>(make)());
}

/// For programs of our own, at the beginning of main: no descriptor gets the number of a standard
/// one that is closed. To read or write there fails as before.
void reserve_standard_numbers() noexcept;

}  // namespace ckptring::os
