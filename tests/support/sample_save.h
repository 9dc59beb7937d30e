// A save without torch: storages full of repeatable noise, and their plan.
#pragma once

#include "plan/pt_layout.h"
#include "save/save_job.h"
#include "support/new_storage.h"

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

/// A state {"t0": uint8 tensor, "t1": ...} over the storages.
inline save::SaveJob job_for(const std::string& path, std::shared_ptr<Storages> storages,
                             const RankInfo& rank = {}, std::int64_t step = 1) {
  StateRecorder recorder;
  std::vector<stage::Source> sources;
  for (const auto& storage : *storages) {
    test::new_storage(recorder, storage.size());
    sources.push_back({storage.data(), storage.size()});
  }
  recorder.begin_dict();
  for (std::uint32_t i = 0; i < storages->size(); ++i) {
    recorder.key("t" + std::to_string(i));
    const std::array<std::int64_t, 1> sizes{static_cast<std::int64_t>((*storages)[i].size())};
    const std::array<std::int64_t, 1> strides{1};
    recorder.tensor({plan::DType::uint8, i, 0, sizes, strides, false, false, false});
  }
  recorder.end_dict();
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
