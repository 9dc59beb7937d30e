// An eventfd as a bell: rung by anyone, cleared by the one who waits for it.
#pragma once

#include "os/unique_fd.h"

namespace ckptring::os {

/// Close-on-exec and non-blocking.  @throws Error
UniqueFd make_eventfd();

/// Makes the descriptor readable. Never blocks; a bell that is already ringing stays so.
void ring_bell(int eventfd) noexcept;

/// Makes it unreadable again.
void clear_bell(int eventfd) noexcept;

}  // namespace ckptring::os
