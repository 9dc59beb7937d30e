// What does a tensor cost to plan, and to find again, without its bytes?
//
// The recorder is fed from memory and the reader reads from memory: this is the cost beyond the
// walk over the tensors and beyond the disk. items_per_second counts tensors; 1 M/s is 1 us each.
#include "plan/pt_archive.h"
#include "plan/pt_layout.h"

#include <ckptring/error.h>

#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace ckptring::plan {
namespace {

/// The state of a model with AdamW, flattened: names, storages, shapes.
struct State {
  std::vector<std::string> keys;
  std::uint64_t bytes;  ///< of each tensor

  State(std::int64_t tensors, std::int64_t bytes_each)
      : bytes(static_cast<std::uint64_t>(bytes_each)) {
    for (std::int64_t i = 0; i < tensors; ++i) {
      keys.push_back("transformer.layers." + std::to_string(i / 12) + ".block.parameter_" +
                     std::to_string(i % 12) + ".weight");
    }
  }

  [[nodiscard]] FilePlan plan() const {
    StateRecorder recorder;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      recorder.storage({.data = &keys[i], .bytes = bytes});
    }
    const std::array<std::int64_t, 2> sizes{static_cast<std::int64_t>(bytes / 256), 64};
    const std::array<std::int64_t, 2> strides{64, 1};
    recorder.begin_dict();
    for (std::size_t i = 0; i < keys.size(); ++i) {
      recorder.key(keys[i]);
      recorder.tensor({.dtype = DType::float32,
                       .storage = static_cast<std::uint32_t>(i),
                       .offset = 0,
                       .sizes = sizes,
                       .strides = strides,
                       .requires_grad = false,
                       .conj = false,
                       .neg = false});
    }
    recorder.end_dict();
    return lay_out_pt(recorder.recording(), {{}, 100, {}});
  }
};

/// The planned file; its payloads read as zeros.
class PlanSource final : public ByteSource {
 public:
  explicit PlanSource(const FilePlan& plan) : plan_(plan) {}
  [[nodiscard]] std::uint64_t size() const override { return plan_.total_bytes(); }
  [[nodiscard]] const std::string& path() const override { return path_; }
  void read(std::uint64_t offset, std::span<std::byte> bytes) const override {
    plan_.for_each_piece(offset, bytes.size(), [&](const FilePlan::Piece& piece) {
      std::byte* const to = bytes.data() + (piece.file_offset - offset);
      if (piece.literal != nullptr) std::memcpy(to, piece.literal, piece.size);
    });
  }

 private:
  const FilePlan& plan_;
  std::string path_ = "plan";
};

void plan_state(benchmark::State& run) {
  const State state(run.range(0), run.range(1));
  for ([[maybe_unused]] auto _ : run) {
    const FilePlan plan = state.plan();
    benchmark::DoNotOptimize(plan.total_bytes());
  }
  run.SetItemsProcessed(run.iterations() * run.range(0));
}

void read_index_and_pickle(benchmark::State& run) {
  const FilePlan plan = State(run.range(0), run.range(1)).plan();
  const PlanSource source(plan);
  for ([[maybe_unused]] auto _ : run) {
    const Document value = PtArchive::open(source).read_value(source);
    benchmark::DoNotOptimize(&value);
  }
  run.SetItemsProcessed(run.iterations() * run.range(0));
}

// Tensors, bytes of each: GPT-2's number of tensors; many small ones; many page-aligned ones.
#define CKPTRING_SIZES \
  Args({444, 1 << 20})->Args({20000, 4096})->Args({20000, 1 << 20})->Unit(benchmark::kMicrosecond)
BENCHMARK(plan_state)->CKPTRING_SIZES;
BENCHMARK(read_index_and_pickle)->CKPTRING_SIZES;

}  // namespace
}  // namespace ckptring::plan

int main(int argc, char** argv) {
  // All benchmarks here take --json FILE; Google Benchmark says it its own way.
  std::vector<std::string> arguments(argv, argv + argc);
  for (std::size_t i = 1; i + 1 < arguments.size(); ++i) {
    if (arguments[i] != "--json") continue;
    arguments[i] = "--benchmark_out_format=json";
    arguments[i + 1] = "--benchmark_out=" + arguments[i + 1];
  }
  std::vector<char*> pointers;
  pointers.reserve(arguments.size());
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
