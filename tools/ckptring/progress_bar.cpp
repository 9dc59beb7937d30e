#include "progress_bar.h"

#include "words.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace ckptring::command {
namespace {

constexpr std::chrono::milliseconds kPause{100};
constexpr unsigned kWidth = 30;

}  // namespace

ProgressBar::ProgressBar(std::uint64_t total_bytes)
    : total_(std::max<std::uint64_t>(total_bytes, 1)), terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressBar::advance(std::uint64_t bytes) {
  done_ += bytes;
  if (!terminal_) return;
  const Clock::time_point now = Clock::now();
  if (now < next_draw_) return;
  next_draw_ = now + kPause;
  drawn_ = true;
  const double part = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  const double seconds = std::chrono::duration<double>(now - begun_).count();
  const auto filled = static_cast<unsigned>(part * kWidth);
  fmt::print(stderr, "\r[{}{}] {:3.0f} %  {} of {}  {:.2f} GB/s\x1b[K", std::string(filled, '#'),
             std::string(kWidth - filled, '.'), 100 * part, human_bytes(done_), human_bytes(total_),
             seconds > 0 ? static_cast<double>(done_) / seconds / 1e9 : 0.0);
  (void)std::fflush(stderr);
}

void ProgressBar::clear() {
  if (!drawn_) return;
  drawn_ = false;
  next_draw_ = Clock::now();
  (void)std::fputs("\r\x1b[K", stderr);
  (void)std::fflush(stderr);
}

}  // namespace ckptring::command
