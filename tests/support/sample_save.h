// A save without torch: storages full of repeatable noise, and their plan.
#pragma once

#include "plan/pt_layout.h"
#include "save/save_job.h"

#include <ckptring/saver.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::test {

using Storages = std::vector<std::vector<std::byte>>;

/// Storages of these sizes, filled from `seed`.
inline std::shared_ptr<Storages> noise(const std::vector<std::uint64_t>& sizes,
                                       std::uint64_t seed) {
  std::mt19937_64 random(seed);
  auto storages = std::make_shared<Storages>();
  for (const std::uint64_t size : sizes) {
    std::vector<std::byte> bytes(size);
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      const std::uint64_t word = random();
      std::memcpy(bytes.data() + at, &word, std::min<std::size_t>(8, bytes.size() - at));
    }
    storages->push_back(std::move(bytes));
  }
  return storages;
}

/// Records a state {"t0": uint8 tensor, "t1": ...} over the storages, which it keeps alive.
inline Saver::Record recorder_of(std::shared_ptr<Storages> storages) {
  return [storages = std::move(storages)](StateRecorder& recorder) {
    recorder.begin_dict();
    for (std::size_t i = 0; i < storages->size(); ++i) {
      const std::vector<std::byte>& bytes = (*storages)[i];
      recorder.key("t" + std::to_string(i));
      const std::array<std::int64_t, 1> sizes{static_cast<std::int64_t>(bytes.size())};
      const std::array<std::int64_t, 1> strides{1};
      recorder.tensor({.dtype = DType::uint8,
                       .storage = recorder.storage(
                           {.data = bytes.data(), .bytes = bytes.size(), .identity = &bytes}),
                       .sizes = sizes,
                       .strides = strides});
    }
    recorder.end_dict();
    recorder.keep_alive(storages);
  };
}

/// The same as a job.
inline save::SaveJob job_for(const std::string& path, std::shared_ptr<Storages> storages,
                             const RankInfo& rank = {}, std::int64_t step = 1) {
  StateRecorder recorder;
  recorder_of(storages)(recorder);
  std::vector<stage::Source> sources;
  for (const auto& storage : *storages) sources.push_back({storage.data(), storage.size()});
  return save::SaveJob{.path = path,
                       .plan = plan::lay_out_pt(recorder.recording(), {rank, step, {}}),
                       .sources = std::move(sources),
                       .keep_alive = storages};
}

inline std::string contents_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace ckptring::test
