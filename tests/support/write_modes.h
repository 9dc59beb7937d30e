// Tests of every way to write, and what a host does not let them try.
#pragma once

#include "store/file_sink.h"
#include "support/temporary_directory.h"

#include <ckptring/config.h>
#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <string>

namespace ckptring::test {

/// For test names and rows of the fault matrix.
inline std::string name_of(WriteMode mode) {
  switch (mode) {
    case WriteMode::automatic:
      return "automatic";
    case WriteMode::direct_io_uring:
      return "io_uring";
    case WriteMode::direct_threads:
      return "threads";
    case WriteMode::buffered:
      return "buffered";
  }
  return "unknown";
}

inline auto write_modes() {
  return ::testing::Values(WriteMode::direct_io_uring, WriteMode::direct_threads,
                           WriteMode::buffered);
}

inline std::string mode_of_test(const ::testing::TestParamInfo<WriteMode>& test) {
  return name_of(test.param);
}

/// Why nothing can be written in this mode below $TMPDIR; empty: it can.
inline std::string refusal_of(WriteMode mode) {
  constexpr std::uint64_t kBytes = 4096;
  const TemporaryDirectory directory;
  CheckpointWriterConfig config;
  config.mode = mode;
  const auto sink = store::make_file_sink(
      store::system_files(), config,
      store::make_target(store::system_files(), directory / "probe", {}, kBytes), nullptr);
  std::string refusal;
  try {
    (void)sink->begin(store::Beginning::fresh);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::invalid_argument) throw;
    refusal = "this host refuses it: " + error.cause();
  }
  sink->abort();
  return refusal;
}

/// Its tests are skipped where their way to write is refused.
template <class Base>
class OfWriteModes : public Base, public ::testing::WithParamInterface<WriteMode> {
 protected:
  void SetUp() override {
    Base::SetUp();
    const std::string refusal = refusal_of(this->GetParam());
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
};

}  // namespace ckptring::test
