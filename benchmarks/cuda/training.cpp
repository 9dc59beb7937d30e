#include "cuda/training.h"

#include "support/stopwatch.h"

#include <ATen/Functions.h>

#include <cmath>

namespace bench {

DeviceTraining::DeviceTraining(const ckptring::test::Devices& devices, int device,
                               const TrainingSize& size)
    : devices_(devices), device_(device) {
  const c10::Device place = devices_.current_stream(device).device();
  const std::vector<std::int64_t> sizes{size.width, size.width};
  // Such that the outputs of all layers are of the same size.
  const double bound = std::sqrt(3.0 / static_cast<double>(size.width));
  const auto random = [&](double most) {
    return at::empty(sizes, at::kFloat).uniform_(-most, most).to(place);
  };
  input_ = random(1);
  for (int i = 0; i < size.layers; ++i) {
    const at::Tensor weight = random(bound);
    const at::Tensor momentum = at::empty(sizes, weight.options());
    momentum.zero_();
    layers_.push_back({.weight = weight,
                       .momentum = momentum,
                       .gradient = at::empty(sizes, weight.options()),
                       .output = at::empty(sizes, weight.options())});
  }
}

/// As many products as a forward and a backward pass have, but for one.
void DeviceTraining::find_gradients() {
  at::Tensor input = input_;
  for (Layer& layer : layers_) {
    at::mm_out(layer.output, input, layer.weight);
    at::mm_out(layer.gradient, input.t(), layer.output);
    input = layer.output;
  }
}

void DeviceTraining::update() {
  for (Layer& layer : layers_) {
    layer.momentum.mul_(0.9).add_(layer.gradient, 1e-6);
    layer.weight.add_(layer.momentum, -1e-6);
  }
}

/// Until the device has done all of it, as a trainer does that looks at its loss.
void DeviceTraining::finish_step() const { devices_.synchronise(devices_.current_stream(device_)); }

std::vector<double> DeviceTraining::run(int steps) {
  std::vector<double> seconds;
  for (int i = 0; i < steps; ++i) {
    const Stopwatch watch;
    find_gradients();
    update();
    finish_step();
    seconds.push_back(watch.seconds());
  }
  return seconds;
}

std::vector<double> DeviceTraining::run_during_save(ckptring::Checkpointer& checkpointer,
                                                    const std::string& path, int most_steps) {
  std::vector<double> seconds;
  ckptring::SaveHandle save;
  for (int i = 0; i < most_steps; ++i) {
    const Stopwatch watch;
    if (i == 0) save = checkpointer.save(path, state());
    find_gradients();
    if (!save.staged.ready()) save.fence(devices_.current_stream(device_));
    update();
    finish_step();
    seconds.push_back(watch.seconds());
    if (i > 0 && save.written.ready()) break;
  }
  (void)save.written.get();
  return seconds;
}

ckptring::StateDict DeviceTraining::state() const {
  ckptring::StateDict state = ckptring::make_state_dict();
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::string name = "layers." + std::to_string(i);
    state.insert_or_assign(name + ".weight", layers_[i].weight);
    state.insert_or_assign(name + ".momentum", layers_[i].momentum);
  }
  return state;
}

std::uint64_t DeviceTraining::state_bytes() const {
  std::uint64_t bytes = 0;
  for (const Layer& layer : layers_) bytes += layer.weight.nbytes() + layer.momentum.nbytes();
  return bytes;
}

}  // namespace bench
