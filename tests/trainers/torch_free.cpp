// A training program without a tensor library: a linear model, its optimizer's momentum and its
// random numbers in plain memory. Saves after every step, resumes from the newest checkpoint, and
// appends the loss of each step to a file before it saves.
//
//   torch_free NAME STEPS LOSSES [CHECKPOINTS [HELPER]]
#include <ckptring/archive.h>
#include <ckptring/checkpoints.h>
#include <ckptring/saver.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr std::int64_t kInputs = 96;
constexpr std::int64_t kOutputs = 64;
constexpr std::size_t kWeights = static_cast<std::size_t>(kInputs * kOutputs);
constexpr float kRate = 0.01F;
constexpr float kMomentum = 0.9F;

class Training {
 public:
  double step(const std::function<void()>& before_update) {
    std::array<float, kInputs> input{};
    for (float& value : input) value = uniform();
    std::array<float, kOutputs> error{};
    double loss = 0;
    for (std::size_t out = 0; out < error.size(); ++out) {
      float sum = 0;
      for (std::size_t in = 0; in < input.size(); ++in) {
        sum += weight_[out * input.size() + in] * input[in];
      }
      error[out] = sum - input[out];  // to learn: the first inputs
      loss += static_cast<double>(error[out]) * static_cast<double>(error[out]);
    }
    before_update();
    for (std::size_t out = 0; out < error.size(); ++out) {
      for (std::size_t in = 0; in < input.size(); ++in) {
        const std::size_t at = out * input.size() + in;
        momentum_[at] = kMomentum * momentum_[at] + error[out] * input[in];
        weight_[at] -= kRate * momentum_[at];
      }
    }
    ++steps_;
    return loss;
  }

  void record(ckptring::StateRecorder& state) const {
    state.begin_dict();
    state.key("model");
    state.begin_dict();
    state.key("weight");
    record_matrix(state, weight_);
    state.end_dict();
    state.key("optimizer");
    state.begin_dict();
    state.key("momentum");
    record_matrix(state, momentum_);
    state.key("rate");
    state.real(kRate);
    state.end_dict();
    state.key("random");
    std::ostringstream random;
    random << random_;
    state.string(random.str());
    state.key("steps");
    state.integer(steps_);
    state.end_dict();
  }

  void restore(const ckptring::Archive& archive) {
    restore_matrix(archive, "model.weight", weight_);
    restore_matrix(archive, "optimizer.momentum", momentum_);
    std::istringstream random(archive.get<std::string>("random"));
    random >> random_;
    steps_ = archive.get<std::int64_t>("steps");
  }

  [[nodiscard]] std::int64_t steps() const { return steps_; }

 private:
  float uniform() { return static_cast<float>(random_() >> 40) * 0x1p-24F; }

  static void record_matrix(ckptring::StateRecorder& state, const std::vector<float>& values) {
    const std::array<std::int64_t, 2> sizes{kOutputs, kInputs};
    const std::array<std::int64_t, 2> strides{kInputs, 1};
    state.tensor(
        {.dtype = ckptring::DType::float32,
         .storage = state.storage({.data = values.data(), .bytes = values.size() * sizeof(float)}),
         .sizes = sizes,
         .strides = strides});
  }
  static void restore_matrix(const ckptring::Archive& archive, const std::string& key,
                             std::vector<float>& values) {
    archive.read(archive.get<ckptring::ArchivedTensor>(key),
                 std::as_writable_bytes(std::span(values)));
  }

  std::vector<float> weight_ = std::vector<float>(kWeights, 0.0F);
  std::vector<float> momentum_ = std::vector<float>(kWeights, 0.0F);
  std::mt19937_64 random_{5};
  std::int64_t steps_ = 0;
};

/// Nothing of libtorch may be in a process that did not ask for it.
void expect_no_torch() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("libtorch") != std::string::npos || line.find("libc10") != std::string::npos) {
      throw std::runtime_error("libtorch is mapped: " + line);
    }
  }
}

std::string folder(const std::string& checkpoints, std::int64_t step) {
  return checkpoints + "/step_" + std::to_string(step);
}

void run(std::int64_t steps, const std::string& losses, const std::string& checkpoints,
         const std::string& helper) {
  Training training;
  std::unique_ptr<ckptring::Saver> saver;
  if (!checkpoints.empty()) {
    ckptring::CheckpointerConfig config;
    config.process_config.executable = helper;
    saver = ckptring::Saver::asynchronous(config);
    std::filesystem::create_directories(checkpoints);
    if (const auto newest = ckptring::latest(checkpoints)) {
      training.restore(ckptring::Archive::open(newest->path));
    }
  }
  expect_no_torch();
  std::cout << "resumed " << training.steps() << std::endl;

  std::ofstream file(losses, std::ios::app);
  file << std::hexfloat;
  std::optional<ckptring::SaveHandle> save;
  while (training.steps() < steps) {
    const double loss = training.step([&] {
      if (save) save->staged.get();
    });
    const std::int64_t done = training.steps();
    file << done << ' ' << loss << std::endl;
    if (!file) throw std::runtime_error("cannot write to " + losses);
    if (!saver) continue;
    if (save) {
      save->written.get();
      std::filesystem::remove_all(folder(checkpoints, done - 2));
    }
    save = saver->save(folder(checkpoints, done),
                       [&](ckptring::StateRecorder& state) { training.record(state); },
                       {.step = done});
  }
  if (save) save->written.get();
  if (saver) saver->close();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 4 || argc > 6) throw std::runtime_error("wrong number of arguments");
    run(std::atoll(argv[2]), argv[3], argc > 4 ? argv[4] : "", argc > 5 ? argv[5] : "");
    return 0;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "torch_free: %s\n", error.what());
    return 1;
  }
}
