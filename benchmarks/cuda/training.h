// A training step on a device that is nearly all matrix products, with and without saves.
#pragma once

#include "gpu/devices.h"

#include <ATen/core/Tensor.h>
#include <ckptring/checkpointer.h>

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

struct TrainingSize {
  int layers = 8;
  std::int64_t width = 4096;  ///< of each layer, and of the batch
};

/// Layers of width x width weights in fp32, each with a momentum of the same size.
class DeviceTraining {
 public:
  /// `devices` outlives this.
  DeviceTraining(const ckptring::test::Devices& devices, int device, const TrainingSize& size);

  /// Seconds of each of so many steps.
  std::vector<double> run(int steps);
  /// The same of steps while a save is under way: it is begun at the first, its fence stands before
  /// each update until it is staged. At least two steps; ends with the step in which it is durable,
  /// at the latest after `most_steps`.
  std::vector<double> run_during_save(ckptring::Checkpointer& checkpointer, const std::string& path,
                                      int most_steps);

  [[nodiscard]] ckptring::StateDict state() const;
  [[nodiscard]] std::uint64_t state_bytes() const;

 private:
  struct Layer {
    at::Tensor weight;
    at::Tensor momentum;
    at::Tensor gradient;
    at::Tensor output;
  };
  void find_gradients();
  void update();
  void finish_step() const;

  const ckptring::test::Devices& devices_;
  const int device_;
  at::Tensor input_;
  std::vector<Layer> layers_;
};

}  // namespace bench
