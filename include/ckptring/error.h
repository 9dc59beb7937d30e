// Errors: one exception type for everything that can go wrong, with a code to branch on and the
// words that a person needs. Read next: checkpointer.h.
#pragma once

#include <ckptring/export.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace ckptring {

/// What kind of failure it was. Stable numbers: they travel through shared memory.
enum class ErrorCode : int {
  ok = 0,
  invalid_argument = 1,        ///< a configuration or argument that can never work
  unsupported_value = 2,       ///< the state holds something that cannot be stored, or the file
                               ///< something that has no counterpart here; names the key. So are
                               ///< tensors on CUDA devices where there is no device, no driver that
                               ///< fits, or no engine in this build; says which
  io = 3,                      ///< a system call on a file failed; see `errno_value()`
  no_space = 4,                ///< ENOSPC, EDQUOT, or a file size limit
  not_found = 5,               ///< no such file or directory; names a link that leads to nothing
  permission = 6,              ///< EACCES, EPERM, EROFS; or the calling thread is another user than
                               ///< the rest of the process
  damaged = 7,                 ///< the file is not a whole, valid checkpoint
  mismatch = 8,                ///< kind, shape, dtype or world size differ from what was asked for,
                               ///< or what is filled cannot be
  missing_key = 9,             ///< `strict` was asked for and keys are missing
  newer_format = 10,           ///< written by a newer version of the format than this build reads
  closed = 11,                 ///< used after `close()`
  wrong_process = 12,          ///< used in a forked child
  out_of_memory = 13,          ///< the ring asked for, or what a file's values take, does not fit
                               ///< into the memory that is left; or the system allows no more
                               ///< threads
  busy_elsewhere = 14,         ///< another checkpointer is still committing to the same name, or
                               ///< has since the one of this save ended
  stalled = 15,                ///< no block reached the disk within `stall_timeout_secs`, though
                               ///< there was one to write
  process_failed = 16,         ///< the checkpoint process could not be started or kept alive
  outcome_unknown = 17,        ///< the checkpoint process may still commit, or died while it did
  aborted = 18,                ///< staging was given up; nothing is visible under the final name
  changed_while_staging = 19,  ///< a tensor that was not captured was modified before `staged` or
                               ///< `fence`; names the key
  hook_failed = 20,            ///< `WriterHook::pre_commit` or a custom writer threw
  internal = 21,               ///< a broken invariant of this library
  device_failed = 22,          ///< a CUDA call failed where there is CUDA; names what it was for
                               ///< (device, stream, key), and has CUDA's own words
};

/// The code's name as written above, e.g. "no_space".
CKPTRING_API std::string_view to_string(ErrorCode code) noexcept;

/// Thrown by every function of this library, and carried by futures.
///
/// `what()` reads "<operation> <path>: <cause>" and is complete on its own.
class CKPTRING_API Error : public std::runtime_error {
 public:
  /// @param operation what was being done, as a verb phrase: "write", "load key model.weight of"
  /// @param path      what was concerned: a file or directory, or where there is none, words or a
  ///                  key ("the module", "state.0.exp_avg"); may be empty
  /// @param cause     why it failed, in words
  /// @param errno_value the system's error number, 0 if there is none
  Error(ErrorCode code, std::string operation, std::string path, std::string cause,
        int errno_value = 0);

  /// An error of a system call: the code is derived from `errno_value`, the cause is its text.
  static Error from_errno(int errno_value, std::string operation, std::string path);

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] const std::string& operation() const noexcept { return operation_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] const std::string& cause() const noexcept { return cause_; }
  [[nodiscard]] int errno_value() const noexcept { return errno_value_; }

 private:
  ErrorCode code_;
  int errno_value_;
  std::string operation_;
  std::string path_;
  std::string cause_;
};

}  // namespace ckptring
