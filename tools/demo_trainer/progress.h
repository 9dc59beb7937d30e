// One line that shows how far the training is.
#pragma once

#include <cstdint>
#include <string>

namespace demo {

/// On a terminal one line that is redrawn; elsewhere a line now and then.
class Progress {
 public:
  /// @param every plain lines: one for so many steps
  Progress(std::int64_t steps, std::int64_t every);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::int64_t step, double loss, double step_seconds, const std::string& saved);

  /// A line of its own, above the live one.
  void note(const std::string& line);

 private:
  void erase();

  std::int64_t steps_;
  std::int64_t every_;
  bool terminal_;
  bool live_ = false;  ///< whether a live line stands there
};

}  // namespace demo
