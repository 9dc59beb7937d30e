// Training runs that are killed at random instants and resumed lose no step and no bit: each loss
// is that of a run which nobody killed, and which saved nothing.
#include "support/fault_row.h"
#include "support/temporary_directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace ckptring::test {
namespace {

using std::chrono::milliseconds;

constexpr int kKills = 10;
constexpr int kMostSteps = 15;  ///< that are waited for before a kill; a fast trainer makes more
constexpr int kUntilKilled = 1'000'000'000;  ///< steps; none makes as many
constexpr std::chrono::minutes kStuck{3};

class Trainer {
 public:
  explicit Trainer(const std::vector<std::string>& arguments, const std::string& output) {
    process_ = ::fork();
    if (process_ < 0) throw std::runtime_error("fork");
    if (process_ > 0) return;
    const int out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
    (void)::dup2(out, STDOUT_FILENO);
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (const std::string& argument : arguments) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Trainer() {
    if (process_ > 0) kill();
  }
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  [[nodiscard]] bool has_ended() {
    if (process_ > 0 && ::waitpid(process_, &status_, WNOHANG) == process_) process_ = -1;
    return process_ < 0;
  }
  void kill() {
    (void)::kill(process_, SIGKILL);
    (void)::waitpid(process_, &status_, 0);
    process_ = -1;
  }
  [[nodiscard]] int status() const { return status_; }

 private:
  pid_t process_ = -1;
  int status_ = 0;
};

const char* const kTorchFree = "torch_free";

std::string program_of(const std::string& training) {
  return training == kTorchFree ? TORCH_FREE_PATH : TRAINERS_PATH;
}

std::vector<std::string> trainings() {
  std::vector<std::string> names{kTorchFree};
  if (*TRAINERS_PATH != '\0') names.insert(names.end(), {"digits", "gan", "language_model"});
  return names;
}

class Kills : public testing::TestWithParam<std::string> {
 protected:
  std::vector<std::string> training(int steps, bool saving) const {
    std::vector<std::string> arguments{program_of(GetParam()), GetParam(), std::to_string(steps),
                                       losses_file(saving)};
    if (saving)
      arguments.insert(arguments.end(), {directory_ / "checkpoints", CKPTRING_DRAIN_PATH});
    return arguments;
  }
  [[nodiscard]] std::string losses_file(bool saving) const {
    return directory_ / (saving ? "losses" : "expected");
  }
  [[nodiscard]] std::vector<std::string> lines_of(const std::string& name) const {
    std::ifstream file(name);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }
  /// The last step that a run came to.
  [[nodiscard]] int last_step() const {
    int last = 0;
    for (const std::string& line : lines_of(losses_file(true))) {
      last = std::max(last, std::atoi(line.c_str()));
    }
    return last;
  }
  void run_to_its_end(int steps, bool saving) {
    Trainer trainer(training(steps, saving), directory_ / "output");
    const auto deadline = std::chrono::steady_clock::now() + kStuck;
    while (!trainer.has_ended()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the trainer does not end";
      std::this_thread::sleep_for(milliseconds(5));
    }
    ASSERT_TRUE(WIFEXITED(trainer.status()) && WEXITSTATUS(trainer.status()) == 0)
        << "status " << trainer.status();
  }
  /// Lets it make so many steps, and some of the next one.
  void run_and_kill(std::size_t steps, milliseconds more) {
    const std::size_t before = lines_of(losses_file(true)).size();
    Trainer trainer(training(kUntilKilled, true), directory_ / "output");
    const auto deadline = std::chrono::steady_clock::now() + kStuck;
    while (lines_of(losses_file(true)).size() < before + steps) {
      ASSERT_FALSE(trainer.has_ended()) << "status " << trainer.status();
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the trainer makes no step";
      std::this_thread::sleep_for(milliseconds(1));
    }
    std::this_thread::sleep_for(more);
    ASSERT_FALSE(trainer.has_ended()) << "status " << trainer.status();
    trainer.kill();
  }

  const TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Trainings, Kills, testing::ValuesIn(trainings()),
                         [](const auto& training) { return training.param; });

TEST_P(Kills, AtRandomInstantsChangeNoLoss) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int kill = 0; kill < kKills && !HasFatalFailure(); ++kill) {
    const auto steps = static_cast<std::size_t>(random() % kMostSteps);
    // Without a step it is somewhere in its start.
    run_and_kill(steps, milliseconds(random() % (steps == 0 ? 500 : 20)));
  }
  if (HasFatalFailure()) return;
  const int all_steps = last_step() + 10;
  run_to_its_end(all_steps, /*saving=*/true);
  run_to_its_end(all_steps, /*saving=*/false);

  const std::vector<std::string> expected = lines_of(losses_file(false));
  ASSERT_EQ(expected.size(), static_cast<std::size_t>(all_steps));
  const std::set<std::string> known(expected.begin(), expected.end());
  std::set<std::string> found;
  FaultRow row{.fault = "a small training is killed, " + GetParam(), .cases = kKills};
  for (const std::string& line : lines_of(losses_file(true))) {
    if (!known.contains(line)) ++row.torn;
    EXPECT_TRUE(known.contains(line)) << line;
    found.insert(line);
  }
  for (const std::string& line : expected) row.lost += found.contains(line) ? 0 : 1;
  row.report();
  // "resumed 0" is the line of the runs that found no checkpoint.
  std::set<std::string> resumed;
  for (const std::string& line : lines_of(directory_ / "output")) resumed.insert(line);
  EXPECT_GE(resumed.size(), 4u) << "hardly any run went on from a checkpoint";
}

}  // namespace
}  // namespace ckptring::test
