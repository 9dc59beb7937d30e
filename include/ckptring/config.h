// Every knob, with its default. Names as in PyTorch where PyTorch has them.
// Read next: checkpointer.h, which takes a CheckpointerConfig.
#pragma once

#include <cstdint>
#include <string>

namespace ckptring {

/// How the built-in file writer reaches the disk.
enum class WriteMode {
  automatic,        ///< the first of the following that works here
  direct_io_uring,  ///< O_DIRECT through io_uring
  direct_threads,   ///< O_DIRECT from a few blocking threads
  buffered,         ///< page cache with RWF_DSYNC, from a few blocking threads
};

/// The built-in file writer, on the sync and the async path.
struct CheckpointWriterConfig {
  WriteMode mode = WriteMode::automatic;  ///< forcing one that does not work here fails the save
  unsigned queue_depth = 8;               ///< writes in flight, 1 to 64
  unsigned threads = 4;                   ///< of the blocking modes, 1 to 64
  /// How long a save waits while another checkpointer is still committing to the same name.
  double busy_timeout_secs = 30;
};

/// Staging: copying the state into the ring.
struct CheckpointStagerConfig {
  /// true: `save` returns at once, and what it has not captured must not change until `staged`.
  /// false: `save` returns when the state is staged.
  bool use_async_staging = true;
  // PyTorch's names, for configurations that come from there. Not looked at: the ring is made known
  // to CUDA wherever that works, and copies from devices do not hold the caller of `save`.
  bool use_pinned_memory = true;
  bool use_non_blocking_copy = true;
  unsigned copy_threads = 0;  ///< threads that copy; 0: half of the cores, at most 8

  // Before `save` returns, what may change at once is copied aside (captured), on the host and on
  // each device that the state is on: all storages that are declared volatile (training_state.h),
  // and of the others those of at most 64 KiB, the smallest first. Async staging only.
  /// Of the small ones in all, in bytes at each place.
  std::uint64_t capture_small_bytes = 4ull << 20;
  /// Of those declared volatile in all, likewise; more than that is an error that names the key.
  std::uint64_t capture_volatile_bytes = 64ull << 20;
  /// Compare some cache lines of each tensor in host memory, as they were at `save`, with what was
  /// staged of it: 1 to 8 of each, others at each save. Finds what is written to all of a tensor
  /// without raising its version, and what is written to a part of it only if it meets a line.
  bool sample_unchanged = true;
};

/// The ring in shared memory, and the checkpoint process that drains it.
struct CheckpointProcessConfig {
  /// 0: chosen at the first `prepare` or `save`; else at least 2 blocks.
  std::uint64_t ring_bytes = 0;
  std::uint64_t block_bytes = 4ull << 20;  ///< multiple of 4096, 4 KiB to 1 GiB
  std::uint64_t plan_bytes = 0;  ///< shared tables of the saves in flight; 0: chosen with the ring
  int ranks_on_node = 0;         ///< sharers of the memory; 0: what launchers say, else 1
  bool prefault = true;          ///< populate the ring in the background

  /// The helper executable; empty: `CKPTRING_DRAIN` of the environment, else `ckptring-drain`
  /// beside the loaded library, else in `../libexec/ckptring/` of it. Never PATH. One that you
  /// name gets this process's environment but for LD_PRELOAD, the last two only LD_LIBRARY_PATH.
  /// Environment and path are those of the time at which the checkpointer is made.
  std::string executable;

  // Seconds. What each counts from and what happens when it passes: README, Time-outs.
  double subprocess_init_timeout_secs = 30;      ///< all attempts to start the helper
  double subprocess_shutdown_timeout_secs = 60;  ///< close() or destructor without progress
  double stall_timeout_secs = 300;               ///< a helper that has work, without progress
  double orphan_timeout_secs = 600;              ///< the same once the trainer is gone
  double stopped_timeout_secs = 10;              ///< the same while the helper is stopped
  unsigned max_restarts = 5;                     ///< per save, with back-off
};

/// Everything that `make_sync_checkpointer` and `make_async_checkpointer` take.
struct CheckpointerConfig {
  CheckpointWriterConfig writer_config;
  CheckpointStagerConfig staging_config;   ///< async only
  CheckpointProcessConfig process_config;  ///< async only
  /// Saves begun and not yet durable. At 1 `save` waits for the previous write, as in PyTorch.
  unsigned max_saves_in_flight = 1;  ///< async only; 1 to 8
  /// Throw an unfetched failure of an earlier save from the next `save`, before it begins.
  bool throw_previous_failure = false;
};

}  // namespace ckptring
