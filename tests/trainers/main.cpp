// A training program: saves after every step, resumes from the newest checkpoint, and appends the
// loss of each step to a file before it saves.
//
//   trainers digits|gan|language_model STEPS LOSSES [CHECKPOINTS HELPER]
#include "trainers/training.h"

#include <ckptring/checkpointer.h>
#include <ckptring/training_state.h>
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace ckptring::test {
namespace {

std::unique_ptr<Training> make(const std::string& name) {
  if (name == "digits") return make_digits();
  if (name == "gan") return make_gan();
  if (name == "language_model") return make_language_model();
  throw std::runtime_error("no training is called " + name);
}

std::string folder(const std::string& checkpoints, std::int64_t step) {
  return checkpoints + "/step_" + std::to_string(step);
}

void run(const std::string& name, std::int64_t steps, const std::string& losses,
         const std::string& checkpoints, const std::string& helper) {
  at::set_num_threads(1);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  torch::manual_seed(5);
  const std::unique_ptr<Training> training = make(name);
  std::int64_t done = 0;

  std::unique_ptr<AsyncCheckpointer> checkpointer;
  if (!checkpoints.empty()) {
    CheckpointerConfig config;
    config.process_config.executable = helper;
    checkpointer = make_async_checkpointer(config);
    std::filesystem::create_directories(checkpoints);
    if (const auto newest = latest(checkpoints)) {
      const StateDict state = checkpointer->load(newest->path).state;
      training->restore(state.at("training").toGenericDict());
      restore_cpu_generator(state.at("generator").toTensor());
      done = newest->step.value();
    }
  }
  std::cout << "resumed " << done << std::endl;

  std::ofstream file(losses, std::ios::app);
  file << std::hexfloat;
  std::optional<SaveHandle> save;
  while (done < steps) {
    const double loss = training->step([&] {
      if (save) save->staged.get();
    });
    ++done;
    file << done << ' ' << loss << std::endl;
    if (!file) throw std::runtime_error("cannot write to " + losses);
    if (!checkpointer) continue;
    if (save) {
      save->written.get();
      std::filesystem::remove_all(folder(checkpoints, done - 2));
    }
    StateDict state = make_state_dict();
    state.insert_or_assign("training", training->collect());
    state.insert_or_assign("generator", collect_cpu_generator());
    save = checkpointer->save(folder(checkpoints, done), state, {.step = done});
  }
  if (save) save->written.get();
}

}  // namespace
}  // namespace ckptring::test

int main(int argc, char** argv) {
  try {
    if (argc != 4 && argc != 6) throw std::runtime_error("wrong number of arguments");
    ckptring::test::run(argv[1], std::atoll(argv[2]), argv[3], argc == 6 ? argv[4] : "",
                        argc == 6 ? argv[5] : "");
    return 0;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "trainers: %s\n", error.what());
    return 1;
  }
}
