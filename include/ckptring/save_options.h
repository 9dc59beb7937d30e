// What is said of a checkpoint when it is saved.
#pragma once

#include <ckptring/checkpoints.h>

#include <cstdint>
#include <optional>

namespace ckptring {

struct SaveOptions {
  std::optional<std::int64_t> step = {};  ///< training step; `latest` orders by it
  Metadata metadata = {};                 ///< stored with the checkpoint
};

}  // namespace ckptring
