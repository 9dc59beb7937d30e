// A FakeCuda whose violations fail the test.
#pragma once

#include "support/fake_cuda.h"

#include <gtest/gtest.h>

#include <string>

namespace ckptring::test {

/// Make it before what uses CUDA, so that it ends after it.
class CheckedFakeCuda : public FakeCuda {
 public:
  using FakeCuda::FakeCuda;
  ~CheckedFakeCuda() {
    for (const std::string& violation : finish()) ADD_FAILURE() << violation;
  }
};

}  // namespace ckptring::test
