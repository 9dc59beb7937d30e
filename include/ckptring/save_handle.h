// What `save` hands back. Read next: checkpointer.h.
#pragma once

#include <ckptring/export.h>
#include <ckptring/future.h>
#include <ckptring/save_report.h>

#include <exception>
#include <functional>
#include <string>

namespace ckptring {

/// A save on its way. Until it is staged, or fenced, only what `save` has captured may change (see
/// CheckpointStagerConfig, and `AsyncCheckpointer::prepare`, which tells what that is): so
/// `forward` and `backward` may run, and a step of the optimizer may not. What else changes fails
/// the save as changed_while_staging, if it is seen: by a tensor's version counter, by its
/// storage's memory, and in host memory by samples of its bytes.
struct SaveHandle {
  /// Ready: the state may change again, wherever its tensors are. Without an error the whole state
  /// is in the ring, and the death of the trainer loses nothing; with one staging was not
  /// completed, and `written` has it too.
  Future<void> staged;
  Future<SaveReport> written;           ///< ready: durable and visible under its final name
  std::exception_ptr previous_failure;  ///< an earlier save's error that nobody had fetched

  /// Lets a device wait, instead of the caller: whatever is enqueued on `stream` (a CUDA stream)
  /// from now on, an optimizer's step for example, runs after this save has read the tensors of the
  /// stream's device. One call for each device, and for each stream that changes them. What had
  /// changed on the device before its first call fails the save. Tensors in host memory may change
  /// only after `staged`, and until then the save dies with the trainer.
  ///
  /// Holds the caller until the save's last copy from a device is enqueued, which waits for no copy
  /// from the host; where the file up to there does not fit into the ring, that is when the disk
  /// has made room for it. Does nothing if the save read nothing from the stream's device. Also
  /// returns if the save fails, whose futures say so; then the stream waits for the copies that
  /// were begun, unless the checkpointer ended without them.
  /// @param stream  native: a cudaStream_t of `device`
  /// @throws Error device_failed; invalid_argument for a stream that is being captured into a CUDA
  ///         graph; wrong_process in a forked child
  CKPTRING_API void fence(int device, void* stream) const;

  /// The same for a tensor library's stream, which knows its device: for libtorch's, include
  /// ckptring/torch/fence.h.
  template <class Stream>
  void fence(const Stream& stream) const {
    fence_stream(*this, stream);
  }

  /// What `fence` calls; may be empty.
  std::function<void(int device, void* stream)> device_fence;
};

/// A save that is not durable (yet), and why.
struct UnwrittenSave {
  std::string path;
  std::exception_ptr error;  ///< null: still under way
};

}  // namespace ckptring
