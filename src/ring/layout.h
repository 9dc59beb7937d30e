// What lies in the shared memory, and who may write it. docs/RING.md explains the protocol.
//
//   0          +-----------------------------------------------------------------+
//              | Header         written once, before any other process maps it   |
//              +-----------------------------------------------------------------+
//              | ProducerLine   staging thread of the trainer                    |
//              | SupervisorLine supervisor thread of the trainer                 |
//              | ConsumerLine   checkpoint process                               |
//   slots      +-----------------------------------------------------------------+
//              | Slot[slot_count]      producer                                  |
//   records    +-----------------------------------------------------------------+
//              | Record[record_count]  producer half | consumer half             |
//   plan       +-----------------------------------------------------------------+
//              | plan area, a FIFO of tables; extents and fix-ups by the         |
//              | producer, checksum ledger by the consumer                       |
//   blocks     +-- 2 MiB aligned ------------------------------------------------+
//              | block_bytes * slot_count                                        |
//              +-----------------------------------------------------------------+
//
// All positions are counts that only grow; index = position mod count. No pointers, no locks.
//
// Edges (every atomic operation names the one it belongs to):
//
//   PUBLISH   Slot::published = position + 1, store by the producer, load by the consumer: the
//             block's bytes and the slot's fields may be read.
//   RELEASE   ConsumerLine::tail, store by the consumer after the block is on disk, load by the
//             producer: the slot may be filled again.
//   INTENT    Record::producer_word, store by the producer, load by the consumer: the record's
//             description and tables may be read; what the trainer wants.
//   OUTCOME   Record::consumer_word, store by the consumer, load by the trainer: the outcome's
//             fields may be read; what became of the save. (Outcome::replaced is for consumers
//             alone, and so are Outcome::file and renamed_over until the save is committed: no
//             edge, but the death of the one before the other's start.)
//   FINISH    ConsumerLine::finished_saves, store by the consumer, load by the producer: the
//             records, tables and blocks of these saves will never be looked at again.
//   SHUTDOWN  SupervisorLine::shutdown: end once nothing is in flight.
//   READY     ConsumerLine::ready: the checkpoint process with this incarnation has started.
//   DOORBELL  a sleeper stores its flag, looks at the positions again, then polls; the other side
//             stores the position, then looks at the flag, and rings only if it is set. All four
//             are sequentially consistent, so one of the two sees the other.
#pragma once

#include "os/file_identity.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ckptring::ring {

inline constexpr std::uint64_t kMagic = 0x676e697274706b63;  // "ckptring"
inline constexpr std::uint32_t kProtocolVersion = 3;
inline constexpr std::uint64_t kBlockAlignment = 4096;
inline constexpr std::uint64_t kHugePageBytes = 2ull << 20;
inline constexpr std::size_t kCacheLine = 64;

/// The numbers that decide where everything lies.
struct Geometry {
  std::uint64_t block_bytes;   ///< multiple of 4096
  std::uint64_t slot_count;    ///< at least 2
  std::uint64_t record_count;  ///< at least max_saves_in_flight + 1
  std::uint64_t plan_bytes;    ///< multiple of 64

  [[nodiscard]] std::uint64_t slots_offset() const noexcept;
  [[nodiscard]] std::uint64_t records_offset() const noexcept;
  [[nodiscard]] std::uint64_t plan_offset() const noexcept;
  [[nodiscard]] std::uint64_t blocks_offset() const noexcept;
  [[nodiscard]] std::uint64_t total_bytes() const noexcept;

  /// Empty if valid, else what is wrong, in words.
  [[nodiscard]] std::string complaint() const;
};

/// Settings that the checkpoint process needs and that never change while the segment lives.
struct Settings {
  std::int32_t global_rank;
  std::int32_t global_world_size;
  std::int32_t write_mode;  ///< ckptring::WriteMode
  std::uint32_t queue_depth;
  std::uint32_t threads;
  std::int32_t log_level;
  double busy_timeout_secs;
  double orphan_timeout_secs;
};

struct Header {
  std::uint64_t magic;
  std::uint32_t protocol_version;
  std::uint32_t reserved;
  Geometry geometry;
  Settings settings;
};

struct alignas(kCacheLine) ProducerLine {
  std::atomic<std::uint32_t> space_sleeping;  ///< DOORBELL
};

struct alignas(kCacheLine) SupervisorLine {
  std::atomic<std::uint32_t> result_sleeping;  ///< DOORBELL
  std::atomic<std::uint32_t> shutdown;         ///< SHUTDOWN
};

struct alignas(kCacheLine) ConsumerLine {
  std::atomic<std::uint64_t> tail;           ///< RELEASE: blocks below are free
  std::atomic<std::uint32_t> data_sleeping;  ///< DOORBELL
  std::atomic<std::uint32_t> ready;          ///< READY
  std::atomic<std::uint64_t> progress_ns;    ///< monotonic time of the last completed step; a hint
  /// FINISH: saves up to this number are over. Without it a restarted consumer would have to find
  /// out from records that are being reused meanwhile.
  std::atomic<std::uint64_t> finished_saves;
};

/// The block's place in the file follows from its position: blocks of a save are consecutive.
struct alignas(kCacheLine) Slot {
  std::atomic<std::uint64_t> published;  ///< PUBLISH: position + 1
  std::uint32_t voided;                  ///< 1: the save is being aborted, nothing was copied
};

/// What the producer says about a save, in the low byte of its word.
enum class Intent : std::uint8_t { none = 0, staging = 1, sealed = 2, aborted = 3 };

/// What the consumer says about a save, in the low byte of its word.
enum class Progress : std::uint8_t {
  none = 0,
  open = 1,
  syncing = 2,
  renaming = 3,
  committed = 4,
  failed = 5,
  aborted = 6,
};

[[nodiscard]] constexpr bool is_terminal(Progress progress) noexcept {
  return progress >= Progress::committed;
}

/// A save's number and state in one word, so that neither is ever seen without the other.
template <class State>
struct Word {
  std::uint64_t save;
  State state;

  [[nodiscard]] constexpr std::uint64_t packed() const noexcept {
    return save << 8 | static_cast<std::uint64_t>(state);
  }
  static constexpr Word unpack(std::uint64_t packed) noexcept {
    return {packed >> 8, static_cast<State>(packed & 0xff)};
  }
};

inline constexpr std::size_t kDirectoryChars = 4096;
inline constexpr std::size_t kNameChars = 256;
inline constexpr std::size_t kTextChars = 1024;
inline constexpr std::size_t kWarnings = 4;
inline constexpr std::uint32_t kUmaskKnown = 01000;

/// What the trainer decided about a save before anything was written. Strings end with NUL.
struct Description {
  std::uint64_t total_bytes;  ///< of the file
  std::uint64_t plan_bytes;   ///< of its tables in the plan area
  std::uint64_t payload_count;
  std::uint64_t fixup_count;
  std::uint64_t ledger_count;
  os::FileIdentity replaced;  ///< what had the final name when the save was announced
  std::uint32_t missing_levels;
  std::uint32_t umask;  ///< the trainer's at `save`, with kUmaskKnown; 0: not known
  char directory[kDirectoryChars];
  char final_name[kNameChars];
  char temporary_name[kNameChars];
};

/// How a save ended, and what it cost the checkpoint process.
struct Outcome {
  std::int32_t error_code;  ///< ckptring::ErrorCode
  std::int32_t errno_value;
  char operation[kTextChars];
  char path[kDirectoryChars + kNameChars];
  char cause[kTextChars];
  std::uint64_t drain_began_ns;
  double drained_seconds;
  double fsync_seconds;
  double commit_seconds;
  /// Read by successors, like the ledger: the file under the final name when the lock was taken
  /// while the trainer lived, and the file that was about to get that name. The latter by the
  /// trainer too, once it has it.
  os::FileIdentity replaced;
  os::FileIdentity file;
  /// The regular file that had the final name right before `file` got it. For the trainer.
  os::FileIdentity renamed_over;
  std::uint32_t warning_count;
  char warnings[kWarnings][kTextChars];
};

struct Record {
  // Written by the producer.
  alignas(kCacheLine) std::atomic<std::uint64_t> producer_word;  ///< INTENT
  std::uint64_t first_position;
  std::atomic<std::uint64_t> end_position;  ///< valid once sealed or aborted (INTENT)
  std::uint64_t plan_position;              ///< of the tables in the plan area
  Description description;
  // Written by the consumer.
  alignas(kCacheLine) std::atomic<std::uint64_t> consumer_word;  ///< OUTCOME
  Outcome outcome;
};

/// Copies `text` into a fixed field, cut to fit and always ended by NUL.
void copy_text(char* field, std::size_t field_chars, const std::string& text) noexcept;

/// The text of a fixed field, which may lack its NUL.
[[nodiscard]] std::string text_of(const char* field, std::size_t field_chars);

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

}  // namespace ckptring::ring
