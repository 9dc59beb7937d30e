// Filling blocks from everywhere at once: devices copy by themselves, the host's part is copied by
// a thread, and whoever ends last says that the blocks are full.
#pragma once

#include "stage/block_copies.h"
#include "stage/device_copies.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace ckptring::stage {

/// The key of a source, for messages. May be empty.
using NameOf = std::function<std::string(std::uint32_t source)>;

class BlockFill {
 public:
  /// Called once, by any thread, when nothing reads or writes the blocks any more. Without a
  /// failure they are full. Must not throw.
  using Filled = std::function<void(const std::exception_ptr& failure)>;

  /// Begins the copies from devices. `copy_from_host` or `give_up` must follow, once. Throws only
  /// before anything is begun, and then `filled` is not called.
  /// @param devices  not null if any copy is from one; outlives the copies
  static std::shared_ptr<BlockFill> begin(BlockCopies copies, DeviceCopies* devices,
                                          const NameOf& name_of, Filled filled);

  /// In the calling thread.
  void copy_from_host();
  /// Instead: the blocks are of no use any more.
  void give_up(const std::exception_ptr& why);

 private:
  BlockFill(BlockCopies copies, Filled filled);
  void end_part(const std::exception_ptr& failure);

  const BlockCopies copies_;
  Filled filled_;
  std::atomic<std::size_t> parts_left_;  ///< one for the host, one for each device
  std::mutex mutex_;
  std::exception_ptr failure_;  ///< the first; guarded by mutex_
};

}  // namespace ckptring::stage
