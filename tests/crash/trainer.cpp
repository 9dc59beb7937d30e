// A trainer that the tests run, and end in every way that trainers end.
//
//   crash_trainer HELPER DIRECTORY STATE_BYTES MODE
//
// It tells on stdout what it has been told: "helper PID", "staging N", "staged N", "written N",
// "failed N: WHY". Save N goes to DIRECTORY/step_N, or to step_1 where all have one name, and is
// filled from seed N.
#include "support/sample_save.h"

#include <ckptring/saver.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using ckptring::CheckpointerConfig;
using ckptring::RankInfo;
using ckptring::SaveHandle;
using ckptring::Saver;
using ckptring::StateRecorder;

volatile std::sig_atomic_t preempted = 0;

/// At once and in one piece: a line that was not written when the trainer dies was not promised.
void tell(const std::string& what) {
  const std::string line = what + "\n";
  if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::_Exit(4);
  }
}

[[noreturn]] void wait_for_the_end() {
  for (;;) ::pause();
}

struct Arguments {
  std::string helper;
  std::string directory;
  std::uint64_t state_bytes = 0;
  std::string mode;
};

CheckpointerConfig config_for(const Arguments& arguments) {
  CheckpointerConfig config;
  config.max_saves_in_flight = arguments.mode.starts_with("two") ? 2 : 1;
  config.process_config.executable = arguments.helper;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = 4 * arguments.state_bytes + (1 << 20);
  config.process_config.max_restarts = 1000;
  return config;
}

class Trainer {
 public:
  explicit Trainer(const Arguments& arguments)
      : arguments_(arguments), saver_(Saver::asynchronous(config_for(arguments), RankInfo{})) {
    saver_->ready();
    tell("helper " + std::to_string(saver_->process_id()));
  }

  SaveHandle save(int step, const Saver::Record& record) {
    const bool one_name = arguments_.mode == "two-sealed-one-name";
    return saver_->save(arguments_.directory + "/step_" + (one_name ? "1" : std::to_string(step)),
                        record, {.step = step});
  }
  Saver::Record recorder(int step) const {
    return ckptring::test::recorder_of(
        ckptring::test::noise({arguments_.state_bytes}, static_cast<std::uint64_t>(step)));
  }

  SaveHandle stage(int step) {
    const Saver::Record record = recorder(step);
    tell("staging " + std::to_string(step));
    SaveHandle handle = save(step, record);
    handle.staged.get();
    tell("staged " + std::to_string(step));
    return handle;
  }

  static void tell_written(int step, const SaveHandle& save) {
    try {
      (void)save.written.get();
      tell("written " + std::to_string(step));
    } catch (const std::exception& error) {
      tell("failed " + std::to_string(step) + ": " + error.what());
    }
  }

  /// Saves for ever.
  [[noreturn]] void train() {
    for (int step = 1;; ++step) tell_written(step, stage(step));
  }

  /// Saves for ever, the next one while the last one is being written.
  [[noreturn]] void train_ahead() {
    std::deque<std::pair<int, SaveHandle>> open;
    for (int step = 1;; ++step) {
      open.emplace_back(step, stage(step));
      while (!open.empty() && open.front().second.written.ready()) {
        tell_written(open.front().first, open.front().second);
        open.pop_front();
      }
    }
  }

  /// Is killed after the last copy, before the save is sealed.
  [[noreturn]] void pause_unsealed() {
    (void)save(1, [record = recorder(1)](StateRecorder& state) {
      record(state);
      state.check_unchanged([](const StateRecorder&, int, const std::vector<bool>&) {
        tell("unsealed 1");
        wait_for_the_end();
      });
    });
    wait_for_the_end();
  }

  /// What the README advises for SIGTERM.
  void train_until_preempted() {
    struct ::sigaction action {};
    action.sa_handler = [](int) { preempted = 1; };
    if (::sigaction(SIGTERM, &action, nullptr) != 0) throw std::runtime_error("sigaction");
    tell("training");
    int step = 0;
    while (preempted == 0) ::usleep(1000);
    const SaveHandle save = stage(++step);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(25);
    for (const auto& unwritten : saver_->wait_written(deadline))
      tell("not durable " + unwritten.path);
    tell_written(step, save);
  }

  /// Data loaders: children without exec, of which the first one ends with all its destructors,
  /// this object's among them if it is static.
  [[noreturn]] void train_with_children() {
    const SaveHandle first = stage(1);
    const pid_t ending = forked([] { std::exit(0); });
    int status = 0;
    if (::waitpid(ending, &status, 0) != ending) throw std::runtime_error("waitpid");
    tell("child ended " + std::to_string(status));
    tell("child " + std::to_string(forked(wait_for_the_end)));
    tell_written(1, first);
    (void)stage(2);
    wait_for_the_end();
  }

 private:
  template <class Body>
  static pid_t forked(Body&& body) {
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("fork");
    if (child == 0) {
      body();
      std::_Exit(5);
    }
    return child;
  }

  Arguments arguments_;
  std::unique_ptr<Saver> saver_;
};

void end_by_exit_with_a_static_trainer(const Arguments& arguments) {
  static Trainer trainer(arguments);
  (void)trainer.stage(1);
  std::exit(0);
}

void pause_with_two_sealed(const Arguments& arguments) {
  Trainer trainer(arguments);
  (void)trainer.stage(1);
  (void)trainer.stage(2);
  wait_for_the_end();
}

const std::map<std::string_view, std::function<void(const Arguments&)>> kModes = {
    {"loop", [](const Arguments& arguments) { Trainer(arguments).train(); }},
    {"two-in-flight", [](const Arguments& arguments) { Trainer(arguments).train_ahead(); }},
    {"pause-unsealed", [](const Arguments& arguments) { Trainer(arguments).pause_unsealed(); }},
    {"pause-sealed",
     [](const Arguments& arguments) {
       Trainer trainer(arguments);
       (void)trainer.stage(1);
       wait_for_the_end();
     }},
    {"two-sealed", pause_with_two_sealed},
    {"two-sealed-one-name", pause_with_two_sealed},
    {"pause-between",
     [](const Arguments& arguments) {
       Trainer trainer(arguments);
       Trainer::tell_written(1, trainer.stage(1));
       wait_for_the_end();
     }},
    {"exit",
     [](const Arguments& arguments) {
       Trainer trainer(arguments);
       (void)trainer.stage(1);
       std::exit(0);
     }},
    {"exit-static", end_by_exit_with_a_static_trainer},
    {"return",
     [](const Arguments& arguments) {
       Trainer trainer(arguments);
       (void)trainer.stage(1);
     }},
    {"throw",
     [](const Arguments& arguments) {
       Trainer trainer(arguments);
       (void)trainer.stage(1);
       throw std::runtime_error("the loss is not a number");
     }},
    {"abort",
     [](const Arguments& arguments) {
       Trainer trainer(arguments);
       (void)trainer.stage(1);
       std::abort();
     }},
    {"preempted", [](const Arguments& arguments) { Trainer(arguments).train_until_preempted(); }},
    {"children",
     [](const Arguments& arguments) {
       static Trainer trainer(arguments);
       trainer.train_with_children();
     }},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 64;
  Arguments arguments{argv[1], argv[2], 0, argv[4]};
  const std::string_view bytes = argv[3];
  const auto mode = kModes.find(arguments.mode);
  if (std::from_chars(bytes.data(), bytes.data() + bytes.size(), arguments.state_bytes).ec !=
          std::errc{} ||
      mode == kModes.end()) {
    return 64;
  }
  mode->second(arguments);  // an exception leaves main, as it may in a real trainer
  return 0;
}
