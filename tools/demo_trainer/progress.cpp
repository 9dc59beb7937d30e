#include "progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace demo {

Progress::Progress(std::int64_t steps, std::int64_t every)
    : steps_(steps), every_(every), terminal_(::isatty(STDOUT_FILENO) == 1) {}

Progress::~Progress() {
  if (live_) std::fputs("\n", stdout);
}

void Progress::show(std::int64_t step, double loss, double step_seconds, const std::string& saved) {
  if (!terminal_ && step % every_ != 0 && step != steps_) return;
  const auto text = fmt::format("step {:3}/{}  loss {:.4f}  {:4.0f} ms/step{}{}", step, steps_,
                                loss, step_seconds * 1e3, saved.empty() ? "" : "  ", saved);
  if (terminal_) {
    constexpr std::int64_t kBar = 24;
    const auto done = static_cast<std::size_t>(kBar * step / steps_);
    erase();
    fmt::print("  [{}{}] {}", std::string(done, '#'), std::string(kBar - done, ' '), text);
    live_ = true;
  } else {
    fmt::print("  {}\n", text);
  }
  std::fflush(stdout);
}

void Progress::note(const std::string& line) {
  erase();
  fmt::print("  {}\n", line);
  std::fflush(stdout);
}

void Progress::erase() {
  if (live_) std::fputs("\r\033[K", stdout);
  live_ = false;
}

}  // namespace demo
