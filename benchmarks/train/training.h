// A training whose steps can be taken one by one. The only part of the benchmark that is torch's.
#pragma once

#include <ckptring/state_dict.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace bench {

struct TrainingShape {
  std::int64_t vocabulary;
  std::int64_t context;
  std::int64_t layers;
  std::int64_t heads;
  std::int64_t width;
  std::int64_t batch;
  std::uint64_t seed;
  int threads;  ///< that compute
};

/// The demo's GPT on random tokens, with AdamW. Not thread-safe.
class Training {
 public:
  explicit Training(const TrainingShape& shape);
  ~Training();
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  /// One step. `before_update` is called when everything is computed, and nothing changed yet.
  void step(const std::function<void()>& before_update);

  /// All that is needed to go on. Shares the training's tensors.
  [[nodiscard]] ckptring::StateDict collect() const;
  [[nodiscard]] std::int64_t parameters() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace bench
