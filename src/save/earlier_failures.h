// Saves that failed, until somebody has been told.
#pragma once

#include <ckptring/future.h>
#include <ckptring/save_handle.h>
#include <ckptring/save_report.h>

#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <vector>

namespace ckptring::save {

/// Thread-safe.
class EarlierFailures {
 public:
  explicit EarlierFailures(int rank) : rank_(rank) {}

  /// @param written  has the error, or is about to have it
  void add(std::uint64_t number, const std::string& path,
           const Future<SaveReport>& written) noexcept;

  /// The newest failure that nobody fetched; older ones are logged. Each is handed over once.
  std::exception_ptr take_unfetched();
  /// Those since the last call, whoever fetched their errors; of more than 1,000 the newest.
  std::vector<UnwrittenSave> take_untold();

 private:
  struct Failed {
    std::uint64_t number;
    std::string path;
    Future<SaveReport> written;
  };
  const int rank_;
  std::mutex mutex_;
  std::vector<Failed> unfetched_;  ///< guarded by mutex_; not yet handed over
  std::deque<Failed> untold_;      ///< guarded by mutex_
};

}  // namespace ckptring::save
