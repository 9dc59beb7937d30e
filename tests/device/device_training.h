// A training whose state is on two devices and on the host, for tests of the library's public face.
#pragma once

#include "contract/states.h"
#include "support/fake_cuda_torch.h"

#include <ATen/ATen.h>
#include <ckptring/checkpointer.h>

#include <cstdint>
#include <string>
#include <vector>

namespace ckptring::test {

/// In blocks of 64 KiB, of which the state of a DeviceTraining fills about 15.
inline CheckpointerConfig ring_of(std::uint64_t blocks) {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = blocks * config.process_config.block_bytes;
  config.process_config.stopped_timeout_secs = 120;  // the tests stop the process themselves
  return config;
}
inline constexpr std::uint64_t kSmallRing = 4;
inline constexpr std::uint64_t kLargeRing = 64;

class DeviceTraining {
 public:
  DeviceTraining() {
    const at::Tensor embedding = noise({300, 257}, c10::kInt);
    auto small = make_state_list();
    for (std::int64_t i = 0; i < 30; ++i) {
      small.push_back(noise({i}, c10::kShort, static_cast<std::uint64_t>(i)));
    }
    values_ = dict({{"embedding", embedding},
                    {"layers", list({dict({{"weight", noise({200, 150}, c10::kLong, 2)},
                                           {"bias", noise({20'000}, c10::kInt, 3)}}),
                                     dict({{"weight", noise({70'000}, c10::kInt, 4)},
                                           {"bias", noise({333}, c10::kByte, 5)}})})},
                    {"head", embedding},
                    {"column", embedding.select(1, 3)},
                    {"small", small},
                    {"step", 7}});
    // In the order of the first visit: embedding, weight and bias of the first layer, ...
    state_ = moved_to(values_, {cuda_device(0), cuda_device(1), c10::kCPU});
    gather(state_, state_tensors_);
    gather(values_, values_tensors_);
  }

  [[nodiscard]] const StateDict& state() const { return state_; }
  /// A copy in host memory of what the state is once all kernels have run.
  [[nodiscard]] StateDict values() const { return to_host(values_); }

  /// The next step: kernels on the current streams, which have not run when this returns.
  void step_on_devices() { step(true); }
  /// The same for the tensors in host memory, at once.
  void step_on_host() { step(false); }
  void step() {
    step_on_devices();
    step_on_host();
  }

 private:
  /// One tensor of each storage that has elements.
  static void gather(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
    if (value.isTensor()) {
      const at::Tensor& tensor = value.toTensor();
      if (tensor.numel() == 0) return;
      for (const at::Tensor& known : tensors) {
        if (known.is_alias_of(tensor)) return;
      }
      tensors.push_back(tensor);
    } else if (value.isGenericDict()) {
      for (const auto& entry : value.toGenericDict()) gather(entry.value(), tensors);
    } else if (value.isList()) {
      for (const c10::IValue& item : value.toListRef()) gather(item, tensors);
    }
  }

  void step(bool on_devices) {
    for (std::size_t i = 0; i < state_tensors_.size(); ++i) {
      if (state_tensors_[i].is_cuda() != on_devices) continue;
      state_tensors_[i].mul_(3).add_(1);
      values_tensors_[i].mul_(3).add_(1);
    }
  }

  StateDict values_ = make_state_dict();
  StateDict state_ = make_state_dict();
  std::vector<at::Tensor> state_tensors_;
  std::vector<at::Tensor> values_tensors_;  ///< the same, in host memory
};

/// Lets the current streams of both devices wait for a save.
inline void fence_both(const SaveHandle& save) {
  for (int device = 0; device < 2; ++device) save.fence(current_stream(device));
}

inline StateDict loaded(const std::string& path) { return CheckpointReader().read(path).state; }

inline std::string words_of(const std::exception_ptr& error) {
  if (!error) return "";
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& failure) {
    return failure.what();
  }
}

}  // namespace ckptring::test
