// The file that a benchmark leaves its numbers in.
#pragma once

#include "support/report.h"
#include "support/turns.h"

#include <functional>
#include <string>

namespace bench {

/// JSON. Replaced as a whole: whoever looks at it finds the numbers of before or the new ones, also
/// after the benchmark was killed. On return from each function they are on the disk, so that none
/// of it is left to be written while something is measured. What is no file (a pipe, a device) is
/// written to as it is, and only once.
class NumbersFile {
 public:
  /// `path`: empty for none.
  /// @throws std::system_error if its directory cannot be written to
  explicit NumbersFile(std::string path);

  /// @throws std::runtime_error naming the file
  void write(const Report& report);

  /// For a benchmark's rounds: after each one writes `report` with what `add` adds to it, and a
  /// note that it is unfinished. What is returned throws as `write`; `report` and this outlive it.
  [[nodiscard]] AfterRound after_round(const Report& report, std::function<void(Report&)> add);

  /// What of an unfinished report is in the file: "demo, 3 of 5 rounds". Empty if nothing is.
  [[nodiscard]] const std::string& so_far() const noexcept { return so_far_; }

 private:
  std::string path_;
  bool replaced_ = false;  ///< else it is written to as it is
  std::string so_far_;
};

}  // namespace bench
