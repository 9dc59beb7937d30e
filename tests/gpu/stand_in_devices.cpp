// Two devices of the stand-in, so that the tests for real ones have run where there are none. How
// they behave under every schedule is looked at elsewhere (save/device_save_test.cpp, contract).
#include "gpu/devices.h"

#include "support/checked_fake_cuda.h"

namespace ckptring::test {

struct Devices::State {
  CheckedFakeCuda cuda{2, Schedule::late()};
};

Devices::Devices() : state_(std::make_unique<State>()) {}
Devices::~Devices() = default;

int Devices::count() const { return state_->cuda.devices(); }
std::string Devices::why_none() const { return ""; }

/// Nothing runs before somebody waits for it anyway.
void Devices::keep_busy(int /*device*/) const {}

std::uint64_t Devices::free_bytes(int /*device*/) const { return 0; }

}  // namespace ckptring::test
