// Trains a character-level GPT on real text, saving asynchronously as it goes and resuming from
// the newest checkpoint: what a training loop looks like that uses this library. The parts that
// concern checkpoints are `Checkpoints` and the loop in `train`.
#include "gpt.h"
#include "memory.h"
#include "progress.h"
#include "text.h"

#include <ckptring/checkpointer.h>
#include <ckptring/training_state.h>

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace demo {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Options {
  std::string text;         ///< file; empty: licence texts
  std::string checkpoints;  ///< directory; empty: none are made
  std::string losses;       ///< file to append "step loss" to
  std::string record;       ///< file to append measurements to, JSON lines
  std::int64_t steps = 60;
  std::int64_t save_every = 5;
  std::int64_t keep = 3;  ///< newest checkpoints to keep
  std::int64_t batch = 4;
  int threads = 0;
  std::uint64_t seed = 1;
  double learning_rate = 5e-4;
  GptShape shape;
};

/// Set by SIGTERM: save and leave.
volatile std::sig_atomic_t preempted = 0;

/// A file that lines are appended to, each on disk's side of the process as soon as it is there,
/// so that SIGKILL loses none. An empty name: nowhere.
class Lines {
 public:
  explicit Lines(const std::string& file) {
    if (file.empty()) return;
    stream_.open(file, std::ios::app);
    if (!stream_) throw std::runtime_error("cannot append to " + file);
  }
  void append(const std::string& line) {
    if (stream_.is_open()) stream_ << line << std::endl;
  }

 private:
  std::ofstream stream_;
};

/// Everything that makes a training run what it is.
struct Run {
  Run(const Options& options, const Text& text)
      : model(options.shape),
        optimizer(
            model->parameters(),
            torch::optim::AdamWOptions(options.learning_rate).betas({0.9, 0.99}).weight_decay(0.1)),
        batches(text, options.batch, options.shape.context) {}

  [[nodiscard]] ckptring::StateDict collect() const {
    auto state = ckptring::make_state_dict();
    state.insert_or_assign("model", ckptring::collect_module(*model));
    state.insert_or_assign("optimizer", ckptring::collect_optimizer(optimizer));
    state.insert_or_assign("cpu_generator", ckptring::collect_cpu_generator());
    state.insert_or_assign("step", step);
    state.insert_or_assign("position", batches.position());
    return state;
  }

  void restore(const ckptring::StateDict& state) {
    ckptring::restore_module(*model, state.at("model").toGenericDict());
    ckptring::restore_optimizer(optimizer, state.at("optimizer").toGenericDict());
    ckptring::restore_cpu_generator(state.at("cpu_generator").toTensor());
    step = state.at("step").toInt();
    batches.set_position(state.at("position").toInt());
  }

  Gpt model;
  torch::optim::AdamW optimizer;
  Batches batches;
  std::int64_t step = 0;  ///< steps done
};

/// The checkpoints of one run: at most one is on its way.
class Checkpoints {
 public:
  Checkpoints(const Options& options, Lines& record)
      : directory_(options.checkpoints),
        keep_(options.keep),
        record_(record),
        checkpointer_(ckptring::make_async_checkpointer()) {}

  /// Continues from the newest whole checkpoint, if there is one.
  std::optional<std::string> resume(Run& run) {
    std::filesystem::create_directories(directory_);
    const auto newest = ckptring::latest(directory_);
    if (newest) run.restore(checkpointer_->load(newest->path).state);
    return newest ? std::optional(newest->path) : std::nullopt;
  }

  /// Sizes the ring and populates it in the background, so that the first save is as quick as
  /// any. To be called after a step: before the first one AdamW has no moments.
  void prepare(const Run& run) { checkpointer_->prepare(run.collect()); }

  /// Begins a save. Its optimizer must not take a step before `wait_staged`.
  void save(const Run& run) {
    const auto begin = Clock::now();
    finish();
    pending_.emplace(Pending{checkpointer_->save(fmt::format("{}/step_{:06}", directory_, run.step),
                                                 run.collect(), {.step = run.step, .metadata = {}}),
                             run.step});
    pending_->held_seconds = seconds_since(begin);
  }

  /// To be called before the run changes.
  void wait_staged() {
    if (!pending_ || pending_->staged) return;
    const auto begin = Clock::now();
    pending_->handle.staged.wait();
    pending_->held_seconds += seconds_since(begin);
    pending_->staged = true;
  }

  /// Takes note of a save that has reached the disk. Never blocks.
  void poll() {
    if (pending_ && pending_->staged && pending_->handle.written.ready()) finish();
  }

  /// Waits until what was begun is durable, or has failed: that is no reason to stop training.
  void finish() {
    if (!pending_) return;
    wait_staged();
    const auto done = *std::exchange(pending_, std::nullopt);
    try {
      note(done, done.handle.written.get());
      remove_old();
    } catch (const ckptring::Error& error) {
      saved_ = fmt::format("step {} was NOT saved", done.step);
      std::cerr << '\n' << error.what() << '\n';
    }
  }

  /// SIGTERM: what was begun has this long to reach the disk.
  void finish_within(std::chrono::seconds limit) {
    wait_staged();
    for (const auto& save : checkpointer_->wait_written(Clock::now() + limit)) {
      std::cerr << "not durable: " << save.path << '\n';
    }
  }

  /// What saving costs in memory, to be called once at the end.
  void record_memory() {
    const auto memory = measure_ring(checkpointer_->process_id());
    record_.append(
        nlohmann::json{{"ring_bytes", memory.ring_bytes}, {"helper_bytes", memory.helper_bytes}}
            .dump());
  }

  void close() { checkpointer_->close(); }

  /// The last save that became durable, in words.
  [[nodiscard]] const std::string& saved() const { return saved_; }

 private:
  struct Pending {
    ckptring::SaveHandle handle;
    std::int64_t step;
    bool staged = false;
    double held_seconds = 0;  ///< the trainer's time
  };

  void note(const Pending& done, const ckptring::SaveReport& report) {
    const double disk_seconds =
        report.drained_seconds + report.fsync_seconds + report.commit_seconds;
    saved_ = fmt::format("saved step {}: {:.0f} MB, {:.2f} GB/s, held {:.1f} ms", done.step,
                         static_cast<double>(report.bytes) / 1e6,
                         static_cast<double>(report.bytes) / disk_seconds / 1e9,
                         done.held_seconds * 1e3);
    record_.append(nlohmann::json{
        {"saved", done.step},
        {"file", report.path},
        {"bytes", report.bytes},
        {"held_seconds", done.held_seconds},
        {"staged_seconds", report.staged_seconds},
        {"disk_seconds",
         disk_seconds}}.dump());
  }

  void remove_old() const {
    std::vector<std::filesystem::path> all;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      if (entry.path().filename().string().starts_with("step_")) all.push_back(entry.path());
    }
    std::sort(all.begin(), all.end());
    for (std::size_t i = 0; i + static_cast<std::size_t>(keep_) < all.size(); ++i) {
      std::filesystem::remove_all(all[i]);
    }
  }

  std::string directory_;
  std::int64_t keep_;
  Lines& record_;
  std::unique_ptr<ckptring::AsyncCheckpointer> checkpointer_;
  std::optional<Pending> pending_;
  std::string saved_;
};

at::Tensor as_tensor(const std::vector<std::int64_t>& characters, const Options& options) {
  return torch::tensor(characters, torch::kLong).view({options.batch, options.shape.context});
}

void train(Options& options) {
  const auto text = read_text(options.text, static_cast<std::size_t>(options.shape.context + 1));
  options.shape.vocabulary = text.alphabet;

  at::set_num_threads(options.threads);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  torch::manual_seed(options.seed);

  Lines losses(options.losses);
  Lines record(options.record);
  Run run(options, text);
  Progress progress(options.steps, options.save_every);

  std::optional<Checkpoints> checkpoints;
  if (!options.checkpoints.empty()) {
    checkpoints.emplace(options, record);
    if (const auto from = checkpoints->resume(run)) {
      progress.note(fmt::format("resumed from {} at step {}", *from, run.step));
      record.append(nlohmann::json{{"resumed", run.step}}.dump());
    }
  }
  if (run.step == 0) {
    std::int64_t parameters = 0;
    for (const auto& parameter : run.model->parameters()) parameters += parameter.numel();
    progress.note(fmt::format("{:.1f} M parameters, {} characters of text, {} threads",
                              static_cast<double>(parameters) / 1e6, text.characters.size(),
                              options.threads));
  }

  const auto first_step = run.step + 1;
  while (run.step < options.steps && preempted == 0) {
    const auto begin = Clock::now();
    const auto batch = run.batches.next();
    const auto scores = run.model->forward(as_tensor(batch.inputs, options));
    const auto loss = torch::nn::functional::cross_entropy(
        scores.flatten(0, 1), as_tensor(batch.targets, options).flatten());
    run.optimizer.zero_grad();
    loss.backward();
    // Until here nothing but buffers was written, of which `save` has taken a copy; now parameters
    // change.
    if (checkpoints) checkpoints->wait_staged();
    run.optimizer.step();
    ++run.step;

    const auto value = loss.item<float>();
    losses.append(fmt::format("{} {:.9g}", run.step, value));
    if (checkpoints) {
      if (run.step == first_step) checkpoints->prepare(run);
      checkpoints->poll();
      if (run.step % options.save_every == 0) checkpoints->save(run);
    }
    const double seconds = seconds_since(begin);
    record.append(nlohmann::json{{"step", run.step}, {"seconds", seconds}}.dump());
    progress.show(run.step, value, seconds, checkpoints ? checkpoints->saved() : "");
  }

  if (checkpoints && preempted != 0) {
    checkpoints->save(run);
    checkpoints->finish_within(std::chrono::seconds(25));
    progress.note(fmt::format("asked to leave: saved step {}", run.step));
  } else if (checkpoints) {
    checkpoints->finish();
    checkpoints->record_memory();
    checkpoints->close();
  }
}

int run(int argc, char** argv) {
  Options options;
  const CLI::Range positive(1, 1'000'000'000);
  CLI::App app("Trains a character-level GPT on text, with checkpoints.", "demo_trainer");
  app.add_option("--text", options.text, "Text file (default: the system's licence texts)")
      ->check(CLI::ExistingFile);
  app.add_option("--checkpoints", options.checkpoints,
                 "Directory to save to and to resume from (default: no checkpoints)");
  app.add_option("--losses", options.losses, "File to append \"step loss\" lines to");
  app.add_option("--record", options.record, "File to append measurements to, as JSON lines");
  app.add_option("--steps", options.steps, "Steps in all")->check(positive);
  app.add_option("--save-every", options.save_every, "Steps from save to save")->check(positive);
  app.add_option("--keep", options.keep, "Newest checkpoints to keep")->check(positive);
  app.add_option("--batch", options.batch, "Sequences per step")->check(positive);
  app.add_option("--context", options.shape.context, "Characters per sequence")->check(positive);
  app.add_option("--layers", options.shape.layers, "Layers")->check(positive);
  app.add_option("--heads", options.shape.heads, "Attention heads")->check(positive);
  app.add_option("--width", options.shape.width, "Width, a multiple of the heads")->check(positive);
  app.add_option("--learning-rate", options.learning_rate, "Learning rate")
      ->check(CLI::Range(1e-9, 10.0));
  app.add_option("--threads", options.threads, "Threads that compute (default: all cores, up to 8)")
      ->check(positive);
  app.add_option("--seed", options.seed, "Seed of the initial weights and of dropout");
  app.option_defaults()->always_capture_default();
  CLI11_PARSE(app, argc, argv);
  if (options.shape.width % options.shape.heads != 0) {
    std::cerr << "--width " << options.shape.width << " is no multiple of --heads "
              << options.shape.heads << '\n';
    return 64;
  }
  if (options.threads == 0) {
    options.threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 8U));
  }
  std::signal(SIGTERM, [](int) { preempted = 1; });

  train(options);
  return 0;
}

}  // namespace
}  // namespace demo

int main(int argc, char** argv) {
  try {
    return demo::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "demo_trainer: " << error.what() << '\n';
    return 1;
  }
}
