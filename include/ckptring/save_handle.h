// What `save` hands back. Read next: checkpointer.h.
#pragma once

#include <ckptring/future.h>
#include <ckptring/save_report.h>

#include <exception>
#include <string>

namespace ckptring {

/// A save on its way.
struct SaveHandle {
  Future<void> staged;                  ///< ready: the state may change again
  Future<SaveReport> written;           ///< ready: durable and visible under its final name
  std::exception_ptr previous_failure;  ///< an earlier save's error that nobody had fetched
};

/// A save that is not durable (yet), and why.
struct UnwrittenSave {
  std::string path;
  std::exception_ptr error;  ///< null: still under way
};

}  // namespace ckptring
