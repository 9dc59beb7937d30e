#include "save/lifetime.h"

#include <ckptring/error.h>

namespace ckptring::save {

void Lifetime::require_open(const char* operation) const {
  if (closed) throw Error(ErrorCode::closed, operation, "", "the checkpointer was closed");
}

void Lifetime::check_not_given_up(const std::string& path) const {
  const std::scoped_lock lock(mutex);
  if (!given_up) return;
  throw Error(ErrorCode::aborted, "stage", path,
              "the checkpointer was closed, and nothing more was staged within "
              "subprocess_shutdown_timeout_secs");
}

}  // namespace ckptring::save
