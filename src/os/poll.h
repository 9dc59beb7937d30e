// Waiting for the first of several descriptors, or a deadline.
#pragma once

#include "os/clock.h"

#include <array>
#include <cstddef>
#include <span>

namespace ckptring::os {

struct Waitable {
  int fd;              ///< ignored if negative
  bool ready = false;  ///< out: readable, hung up or in error
};

/// Blocks until one of `waitables` is ready or the deadline passes; marks the ready ones.
/// @return whether any is ready.  @throws Error if poll fails
bool wait_any(std::span<Waitable> waitables, Deadline deadline);

/// Whether `fd` is readable right now.
bool is_ready(int fd);

}  // namespace ckptring::os
