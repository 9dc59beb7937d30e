// What the tests of saves from devices share.
#pragma once

#include "contract/states.h"
#include "gpu/devices.h"
#include "support/moved_state.h"
#include "support/temporary_directory.h"

#include <ckptring/checkpointer.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>

namespace ckptring::test {

/// Skipped where there is no device.
class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (devices_.count() == 0) GTEST_SKIP() << devices_.why_none();
  }

  StateDict load(const std::string& name, const LoadOptions& options = {}) const {
    return CheckpointReader().read(directory_ / name, {}, options).state;
  }

  const Devices devices_;
  const TemporaryDirectory directory_;
};

constexpr std::uint64_t kBlock = 1 << 20;

/// 0 blocks: as large as the first file.
inline CheckpointerConfig ring_of(std::uint64_t blocks) {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = kBlock;
  config.process_config.ring_bytes = blocks * kBlock;
  return config;
}

/// Filled on the device, by a kernel: not a copy that might have waited for something.
inline at::Tensor full(std::int64_t elements, double value, int device) {
  at::Tensor made =
      at::empty({elements}, at::TensorOptions().dtype(at::kFloat).device(cuda_device(device)));
  made.fill_(value);
  return made;
}

}  // namespace ckptring::test
