// Loads by this library, and says how long it took.
//
//   bench_loader --threads N [--no-checksums]
//
// Takes commands as lines of JSON, and answers each with a line:
//
//   {"state": FILE}
//       makes a state like that of FILE to load into, filled with zeros. {"bytes", "tensors"} of
//       it, {"partial_bytes", "partial_tensors"} of every tenth tensor
//   {"load": PATH, "kind": "full" | "in_place" | "partial"}
//       loads all of PATH as a new state, or into the state, or every tenth tensor of the state.
//       {"seconds", "cpu": seconds of processor time, "bytes"}
//
// An answer may be {"error": TEXT} instead. Ends at the end of its input.
#include "support/process.h"
#include "support/stopwatch.h"

#include <ckptring/reader.h>

#include <ATen/core/Tensor.h>

#include <malloc.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using ckptring::StateDict;
using nlohmann::json;

/// One of so many tensors is in a partial state, in walking order from this one on: of GPT-2 small
/// with AdamW that is a tenth of the bytes as well.
constexpr std::size_t kPartialStep = 10;
constexpr std::size_t kPartialFirst = 2;

void collect(const StateDict& dict, std::vector<at::Tensor>& tensors) {
  for (const auto& entry : dict) {
    if (entry.value().isTensor()) tensors.push_back(entry.value().toTensor());
    if (entry.value().isGenericDict()) collect(entry.value().toGenericDict(), tensors);
  }
}

std::vector<at::Tensor> tensors_of(const StateDict& dict) {
  std::vector<at::Tensor> tensors;
  collect(dict, tensors);
  return tensors;
}

/// The same tensors, but not all of them. `seen`: tensors before this dict.
StateDict part_of(const StateDict& dict, std::size_t& seen) {
  StateDict part = ckptring::make_state_dict();
  for (const auto& entry : dict) {
    if (entry.value().isTensor()) {
      if (seen++ % kPartialStep == kPartialFirst) part.insert(entry.key(), entry.value());
    } else if (entry.value().isGenericDict()) {
      StateDict inner = part_of(entry.value().toGenericDict(), seen);
      if (!inner.empty()) part.insert(entry.key(), inner);
    }
  }
  return part;
}

float& last_element(const at::Tensor& tensor) {
  return static_cast<float*>(tensor.mutable_data_ptr())[tensor.numel() - 1];
}

std::uint64_t bytes_of(const std::vector<at::Tensor>& tensors) {
  std::uint64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += tensor.nbytes();
  return bytes;
}

class Loader {
 public:
  explicit Loader(const ckptring::LoadOptions& options) : options_(options) {}

  json answer_to(const json& command) {
    return command.contains("state") ? make_state(command.at("state"))
                                     : load(command.at("load"), command.at("kind"));
  }

 private:
  json make_state(const std::string& file) {
    state_ = reader_.read(file).state;
    for (const at::Tensor& tensor : tensors_of(*state_)) {
      std::memset(tensor.mutable_data_ptr(), 0, tensor.nbytes());
    }
    std::size_t seen = 0;
    part_ = part_of(*state_, seen);
    const std::vector<at::Tensor> all = tensors_of(*state_);
    const std::vector<at::Tensor> part = tensors_of(*part_);
    return {{"bytes", bytes_of(all)},
            {"tensors", all.size()},
            {"partial_bytes", bytes_of(part)},
            {"partial_tensors", part.size()}};
  }

  json load(const std::string& path, const std::string& kind) {
    const std::optional<StateDict> target = kind == "full"       ? std::nullopt
                                            : kind == "in_place" ? state_
                                                                 : part_;
    if (target) {
      for (const at::Tensor& tensor : tensors_of(*target)) last_element(tensor) = 0;
    }
    (void)::malloc_trim(0);  // a new state finds as little memory as after a restart
    const double cpu_before = bench::own_cpu_seconds();
    const bench::Stopwatch watch;
    const ckptring::LoadResult loaded = reader_.read(path, target, options_);
    const double seconds = watch.seconds();
    const double cpu = bench::own_cpu_seconds() - cpu_before;
    const std::vector<at::Tensor> tensors = tensors_of(loaded.state);
    for (const at::Tensor& tensor : tensors) {
      if (last_element(tensor) == 0) throw std::runtime_error("a tensor was not loaded");
    }
    return {{"seconds", seconds}, {"cpu", cpu}, {"bytes", bytes_of(tensors)}};
  }

  const ckptring::LoadOptions options_;
  const ckptring::CheckpointReader reader_;
  std::optional<StateDict> state_;
  std::optional<StateDict> part_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    ckptring::LoadOptions options;
    CLI::App app("Loads by this library, as it is told on its standard input");
    app.add_option("--threads", options.threads, "that load");
    app.add_flag("!--no-checksums", options.verify_checksums, "do not check what is read");
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error);
    }
    Loader loader(options);
    for (std::string line; std::getline(std::cin, line);) {
      json answer;
      try {
        answer = loader.answer_to(json::parse(line));
      } catch (const std::exception& error) {
        answer = {{"error", error.what()}};
      }
      std::cout << answer.dump() << std::endl;
    }
    return 0;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "bench_loader: %s\n", error.what());
    return 1;
  }
}
