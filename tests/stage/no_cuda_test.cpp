// A build without the CUDA Toolkit's headers.
#include "stage/device_access.h"

#include <gtest/gtest.h>

namespace ckptring::stage {
namespace {

TEST(NoCuda, ABuildWithoutItHasNoDevicesAndSaysWhy) {
  DeviceAccess devices{{}};
  EXPECT_EQ(devices.copies(), nullptr);
  EXPECT_EQ(devices.why_not(), "ckptring was built without CUDA (CKPTRING_CUDA)");
}

}  // namespace
}  // namespace ckptring::stage
