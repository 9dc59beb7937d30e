#include "torch/device_targets.h"

#include "torch/current_stream.h"
#include "torch/file_layout.h"

#include <cstdint>
#include <exception>
#include <future>

namespace ckptring::torch_state {
namespace {

class DeviceTarget final : public store::ReadTarget {
 public:
  DeviceTarget(stage::DeviceCopyEngine& engine, std::byte* memory) noexcept
      : engine_(engine), memory_(memory) {}

  [[nodiscard]] std::byte* memory(std::uint64_t) noexcept override { return nullptr; }

  void take(std::uint64_t offset, std::span<const std::byte> bytes) override {
    const auto done = std::make_shared<std::promise<void>>();
    const stage::Copy copy{memory_ + offset, bytes.data(), bytes.size(), 0};
    engine_.copy({&copy, 1}, [done](const std::exception_ptr& failure) {
      if (failure) {
        done->set_exception(failure);
      } else {
        done->set_value();
      }
    });
    // Ended by CUDA, which ends every copy, be it with an error.
    done->get_future().get();
  }

 private:
  stage::DeviceCopyEngine& engine_;
  std::byte* const memory_;  ///< on the device
};

}  // namespace

DeviceTargets::DeviceTargets(base::LogContext log) noexcept : access_(log) {}
DeviceTargets::~DeviceTargets() = default;

void DeviceTargets::prepare(int device, std::span<std::byte> windows) {
  copies_ = access_.copies();
  if (copies_ == nullptr) return;
  // Before the engine is made: in a thread that never used CUDA this goes through libtorch's guard,
  // which knows how to leave a device behind that has no context.
  use_current_stream(device, [&](void* stream) {
    const std::shared_ptr<stage::StreamPoint> enqueued = copies_->mark(device, stream);
    copies_->to_device(device).copy_after(*enqueued);
  });
  prepared_.insert(device);
  if (!pinned_) pinned_ = copies_->pin(windows, windows.size(), device, {});
}

bool DeviceTargets::reach(const c10::Device& device) const {
  return device.is_cuda() && prepared_.contains(device.index());
}

std::unique_ptr<store::ReadTarget> DeviceTargets::make(const at::Tensor& target) const {
  return std::make_unique<DeviceTarget>(copies_->to_device(target.device().index()),
                                        memory_of(target));
}

}  // namespace ckptring::torch_state
