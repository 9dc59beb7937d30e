// One suite for both paths: what a test asks of "a checkpointer" must hold for each of them.
#pragma once

#include <ckptring/checkpointer.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/temporary_directory.h"

namespace ckptring::test {

enum class Path { sync, async };

inline std::string name(const testing::TestParamInfo<Path>& info) {
  return info.param == Path::sync ? "Sync" : "Async";
}

/// A ring that most files of these tests do not fit into, so that they stream.
inline CheckpointerConfig small_ring() {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = 4 * config.process_config.block_bytes;
  return config;
}

inline std::unique_ptr<Checkpointer> make_checkpointer(
    Path path, const CheckpointerConfig& config = small_ring(), RankInfo rank = {}) {
  if (path == Path::sync) return make_sync_checkpointer(config, rank);
  return make_async_checkpointer(config, rank);
}

/// A path where a save fails only once it is written: no folder can be made there.
inline const std::string kUnwritable = "/proc/ckptring-cannot-write-here";

class Contract : public testing::TestWithParam<Path> {
 protected:
  /// Saves and waits until it is durable.
  SaveReport save(const std::string& name, const StateDict& state,
                  const SaveOptions& options = {}) {
    return checkpointer->save(directory / name, state, options).written.get();
  }

  TemporaryDirectory directory;
  std::unique_ptr<Checkpointer> checkpointer = make_checkpointer(GetParam());
};

#define CKPTRING_BOTH_PATHS(suite)                                                            \
  INSTANTIATE_TEST_SUITE_P(                                                                   \
      Paths, suite, testing::Values(ckptring::test::Path::sync, ckptring::test::Path::async), \
      ckptring::test::name)

/// Runs `call`, which must throw an Error, and returns it.
template <class Call>
Error error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no Error was thrown";
  return {ErrorCode::ok, "", "", ""};
}

}  // namespace ckptring::test
