// The trainer program of these tests, run as a process of its own, and what becomes of its
// checkpoint process.
#pragma once

#include "crash/orphans.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::test {

constexpr std::uint64_t kTrainersState = 1'500'000;

class TrainerProcess {
 public:
  /// Leads a process group of its own, as a launcher's child does.
  TrainerProcess(const std::string& mode, const std::string& directory,
                 const std::string& helper = CKPTRING_DRAIN_PATH,
                 std::uint64_t state_bytes = kTrainersState) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    const std::string bytes = std::to_string(state_bytes);
    process_ = ::fork();
    if (process_ < 0) throw std::runtime_error("fork");
    if (process_ == 0) {
      (void)::setpgid(0, 0);
      // Whoever started the tests may have had them ignore these, as nohup does.
      for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) (void)::signal(number, SIG_DFL);
      (void)::dup2(ends[1], STDOUT_FILENO);
      for (int fd = STDERR_FILENO + 1; fd < 256; ++fd) (void)::close(fd);  // whatever ctest left
      ::execl(CRASH_TRAINER_PATH, CRASH_TRAINER_PATH, helper.c_str(), directory.c_str(),
              bytes.c_str(), mode.c_str(), nullptr);
      ::_exit(127);
    }
    (void)::setpgid(process_, process_);  // whoever comes first
    ::close(ends[1]);
    out_ = ends[0];
  }
  ~TrainerProcess() {
    if (process_ > 0) {
      (void)::kill(process_, SIGKILL);
      (void)::waitpid(process_, nullptr, 0);
    }
    ::close(out_);
  }
  TrainerProcess(const TrainerProcess&) = delete;
  TrainerProcess& operator=(const TrainerProcess&) = delete;

  [[nodiscard]] pid_t id() const noexcept { return process_; }
  /// Known once its line was read.
  [[nodiscard]] pid_t helper() const noexcept { return helper_; }
  [[nodiscard]] pid_t child() const noexcept { return child_; }
  /// The highest save that was reported as staged, as written; 0: none.
  [[nodiscard]] int staged() const noexcept { return staged_; }
  [[nodiscard]] int written() const noexcept { return written_; }

  /// Reads until this line has come. @return false if the output ended before
  bool read_until(const std::string& line) {
    while (lines_.empty() || lines_.back() != line) {
      if (!read_line()) return false;
    }
    return true;
  }
  /// Reads what there is until nothing came for `limit`, or the output ended.
  void read_for(std::chrono::microseconds limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(
          deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) return;
      ::pollfd waiting{out_, POLLIN, 0};
      const ::timespec wait{left.count() / 1'000'000'000, left.count() % 1'000'000'000};
      if (::ppoll(&waiting, 1, &wait, nullptr) <= 0 || !read_line()) return;
    }
  }

  void signal(int number) const {
    if (::kill(process_, number) != 0) throw std::runtime_error("signal the trainer");
  }
  void signal_group(int number) const {
    if (::kill(-process_, number) != 0) throw std::runtime_error("signal the trainer's group");
  }

  /// Waits for the trainer's end. @return the wait status
  int wait() {
    const std::optional<int> status = wait_for_end(process_);
    if (!status) throw std::runtime_error("the trainer does not end");
    process_ = -1;
    return *status;
  }
  /// Its last words, which may have come after it was killed but before it died.
  void read_to_end() {
    while (read_line()) {
    }
  }
  void kill_and_read() {
    signal(SIGKILL);
    (void)wait();
    read_to_end();
  }

  [[nodiscard]] const std::vector<std::string>& lines() const noexcept { return lines_; }

 private:
  bool read_line() {
    std::string line;
    for (char c = 0;;) {
      ::pollfd waiting{out_, POLLIN, 0};
      if (::poll(&waiting, 1, static_cast<int>(std::chrono::milliseconds(kStuck).count())) <= 0) {
        throw std::runtime_error("the trainer says nothing any more");
      }
      if (::read(out_, &c, 1) != 1) return false;
      if (c == '\n') break;
      line += c;
    }
    const auto number_after = [&](const std::string& word, int& value) {
      if (line.starts_with(word)) {
        (void)std::from_chars(line.data() + word.size(), line.data() + line.size(), value);
      }
    };
    number_after("helper ", helper_);
    number_after("child ", child_);
    number_after("staged ", staged_);
    number_after("written ", written_);
    lines_.push_back(std::move(line));
    return true;
  }

  pid_t process_ = -1;
  pid_t helper_ = -1;
  pid_t child_ = -1;
  int staged_ = 0;
  int written_ = 0;
  int out_ = -1;
  std::vector<std::string> lines_;
};

}  // namespace ckptring::test
