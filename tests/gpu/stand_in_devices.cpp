// Two devices of the stand-in, so that the tests for real ones have run where there are none. How
// they behave under every schedule is looked at elsewhere (save/device_save_test.cpp, contract).
#include "gpu/devices.h"

#include "support/checked_fake_cuda.h"
#include "support/fake_cuda_torch.h"

namespace ckptring::test {

struct Devices::State {
  CheckedFakeCuda cuda{2, Schedule::random(1)};
};

Devices::Devices() : state_(std::make_unique<State>()) {}
Devices::~Devices() = default;

int Devices::count() const { return state_->cuda.devices(); }
std::string Devices::why_none() const { return ""; }

std::shared_ptr<void> Devices::keep_busy(int device) const {
  cudaStream_t stream = native_handle(current_stream(device));
  if (stream == nullptr) stream = state_->cuda.null_stream(device);
  return std::make_shared<FakeCuda::Hold>(state_->cuda.hold(stream));
}

void Devices::break_device(int device) const { state_->cuda.fault_device(device); }

std::uint64_t Devices::free_bytes(int /*device*/) const { return 0; }

}  // namespace ckptring::test
