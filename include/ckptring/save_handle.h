// What `save` hands back. Read next: checkpointer.h.
#pragma once

#include <ckptring/future.h>
#include <ckptring/save_report.h>

#include <exception>
#include <string>

namespace ckptring {

/// A save on its way.
struct SaveHandle {
  /// Ready: the state may change again. Without an error the whole state is in the ring, and the
  /// death of the trainer loses nothing; with one staging was not completed, and `written` has it
  /// too.
  Future<void> staged;
  Future<SaveReport> written;           ///< ready: durable and visible under its final name
  std::exception_ptr previous_failure;  ///< an earlier save's error that nobody had fetched
};

/// A save that is not durable (yet), and why.
struct UnwrittenSave {
  std::string path;
  std::exception_ptr error;  ///< null: still under way
};

}  // namespace ckptring
