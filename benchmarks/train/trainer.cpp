// Trains and saves by this library. Speaks what peers/trainer.py speaks, and one thing more:
//
//   {"copy": THREADS}
//       copies the state into populated memory, as often as makes a median. {"copied": SECONDS}
#include "support/copy_baseline.h"
#include "support/series.h"
#include "support/stopwatch.h"
#include "support/warm_memory.h"
#include "train/training.h"

#include <ckptring/checkpointer.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using nlohmann::json;

constexpr int kCopies = 3;

struct Options {
  std::string way;
  ckptring::CheckpointerConfig config;
};

bench::TrainingShape shape_from(const json& wanted) {
  return {.vocabulary = wanted.at("vocabulary"),
          .context = wanted.at("context"),
          .layers = wanted.at("layers"),
          .heads = wanted.at("heads"),
          .width = wanted.at("width"),
          .batch = wanted.at("batch"),
          .seed = wanted.at("seed"),
          .threads = wanted.at("threads")};
}

void find_payloads(const c10::IValue& value, std::vector<std::span<const std::byte>>& found) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    found.emplace_back(static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes());
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) find_payloads(entry.value(), found);
  }
}

/// The bytes of all tensors. Valid as long as the state's tensors.
std::vector<std::span<const std::byte>> payloads_of(const ckptring::StateDict& state) {
  std::vector<std::span<const std::byte>> found;
  find_payloads(state, found);
  return found;
}

std::uint64_t size_of(const std::vector<std::span<const std::byte>>& payloads) {
  std::uint64_t bytes = 0;
  for (const auto& payload : payloads) bytes += payload.size();
  return bytes;
}

/// One save after the other, as a training loop makes them.
class Saves {
 public:
  explicit Saves(const Options& options) {
    if (options.way == "sync") {
      checkpointer_ = ckptring::make_sync_checkpointer(options.config);
      return;
    }
    auto async = ckptring::make_async_checkpointer(options.config);
    async_ = async.get();
    checkpointer_ = std::move(async);
  }

  /// Before the first save.
  void prepare(const ckptring::StateDict& state) {
    if (async_ == nullptr) return;
    async_->prepare(state);
    async_->ready();
    async_->wait_prefaulted();
  }

  void begin(const bench::Training& training, const std::string& path) {
    const bench::Stopwatch watch;
    save_ = checkpointer_->save(path, training.collect());
    held_ = watch.seconds();
  }
  void before_update() {
    const bench::Stopwatch watch;
    save_.staged.wait();
    held_ += watch.seconds();
  }
  /// Until it is durable, which the next save would wait for too.
  void finish() const { (void)save_.written.get(); }

  /// Seconds that the last save kept the loop from going on.
  [[nodiscard]] double held() const noexcept { return held_; }

 private:
  std::unique_ptr<ckptring::Checkpointer> checkpointer_;
  ckptring::AsyncCheckpointer* async_ = nullptr;  ///< the same, if it is one
  ckptring::SaveHandle save_;
  double held_ = 0;
};

class Trainer {
 public:
  explicit Trainer(const Options& options) : options_(options) {}

  json answer_to(const json& command) {
    if (command.contains("train")) return train(command.at("train"), command.at("steps"));
    if (command.contains("prepare")) return prepare(command.at("prepare"));
    if (command.contains("copy")) return copy(command.at("copy"));
    const int steps = command.at("steps");
    const json& path = command.at("save");
    return path.is_null() ? run(steps) : run_saving(steps, path);
  }

 private:
  json train(const json& shape, int steps) {
    training_.emplace(shape_from(shape));
    for (int step = 0; step < steps; ++step) training_->step([] {});
    return {{"parameters", training_->parameters()},
            {"bytes", size_of(payloads_of(training_->collect()))}};
  }

  json prepare(const std::string& directory) {
    const bench::Stopwatch watch;
    saves_.emplace(options_);
    saves_->prepare(training_->collect());
    saves_->begin(*training_, directory);
    saves_->finish();
    return {{"prepared", watch.seconds()}};
  }

  json run(int steps) {
    const bench::Stopwatch watch;
    std::vector<double> taken = take_steps(
        steps, [] {}, watch);
    return {{"steps", std::move(taken)}, {"trained", watch.seconds()}};
  }

  json run_saving(int steps, const std::string& path) {
    const bench::Stopwatch watch;
    saves_->begin(*training_, path);
    std::vector<double> taken = take_steps(
        steps, [&] { saves_->before_update(); }, watch);
    saves_->finish();
    const double durable = watch.seconds();
    return {{"steps", std::move(taken)},
            {"trained", durable},
            {"durable", durable},
            {"held", saves_->held()}};
  }

  /// @return how long each took; the first since the clock was started
  std::vector<double> take_steps(int steps, const std::function<void()>& before_update,
                                 const bench::Stopwatch& watch) {
    std::vector<double> taken;
    double began = 0;
    for (int step = 0; step < steps; ++step) {
      training_->step(before_update);
      const double ended = watch.seconds();
      taken.push_back(ended - began);
      began = ended;
    }
    return taken;
  }

  json copy(unsigned threads) {
    const ckptring::StateDict state = training_->collect();
    const auto payloads = payloads_of(state);
    const bench::WarmMemory warm(size_of(payloads));
    const bench::CopyBaseline baseline(payloads, warm.bytes(), threads);
    (void)baseline.run();  // pays for what the first of anything pays
    std::vector<double> seconds(kCopies);
    for (double& one : seconds) one = baseline.run();
    return {{"copied", bench::quartiles(seconds).median}};
  }

  const Options& options_;
  std::optional<bench::Training> training_;
  std::optional<Saves> saves_;
};

void serve(const Options& options) {
  Trainer trainer(options);
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = trainer.answer_to(json::parse(line));
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Options options;
    CLI::App app("Trains a GPT on random tokens, for bench_train, which tells it what to do.");
    app.add_option("way", options.way)->required()->check(CLI::IsMember({"async", "sync"}));
    app.add_option("--copy-threads", options.config.staging_config.copy_threads);
    app.add_flag("!--foreground", options.config.staging_config.use_async_staging);
    app.add_option("--queue-depth", options.config.writer_config.queue_depth);
    CLI11_PARSE(app, argc, argv);
    serve(options);
    return 0;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "bench_trainer: %s\n", error.what());
    return 1;
  }
}
