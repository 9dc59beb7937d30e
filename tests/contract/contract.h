// One suite for both paths: what a test asks of "a checkpointer" must hold for each of them.
#pragma once

#include <ckptring/checkpointer.h>
#include <gtest/gtest.h>
#include <sys/types.h>

#include <csignal>

#include <memory>
#include <ostream>
#include <string>

#include "contract/places.h"
#include "contract/plain_writer.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

namespace ckptring::test {

/// How a checkpoint is written: two paths, each with the built-in writer and with a custom one.
enum class Path { sync, async, sync_custom, async_custom };

inline const char* name(Path path) {
  switch (path) {
    case Path::sync:
      return "Sync";
    case Path::async:
      return "Async";
    case Path::sync_custom:
      return "SyncCustomWriter";
    default:
      return "AsyncCustomWriter";
  }
}
inline void PrintTo(Path path, std::ostream* out) { *out << name(path); }

/// A ring that most files of these tests do not fit into, so that they stream.
inline CheckpointerConfig small_ring() {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = 4 * config.process_config.block_bytes;
  return config;
}

inline std::unique_ptr<Checkpointer> make_checkpointer(Path path,
                                                       CheckpointerConfig config = small_ring(),
                                                       RankInfo rank = {}) {
  switch (path) {
    case Path::sync:
      return make_sync_checkpointer(config, rank);
    case Path::sync_custom:
      return make_sync_checkpointer(config, rank, {std::make_unique<PlainWriter>(), nullptr});
    case Path::async_custom:
      config.process_config.executable = CKPTRING_CUSTOM_DRAIN_PATH;
      break;
    case Path::async:
      break;
  }
  return make_async_checkpointer(config, rank);
}

/// Holds the checkpoint process still, so that nothing is drained meanwhile.
class Stopped {
 public:
  explicit Stopped(const AsyncCheckpointer& checkpointer) : pid_(checkpointer.process_id()) {
    EXPECT_GT(pid_, 0);
    EXPECT_EQ(::kill(pid_, SIGSTOP), 0);
  }
  ~Stopped() { ::kill(pid_, SIGCONT); }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;

 private:
  pid_t pid_;
};

/// A path where a save fails only once it is written: no folder can be made there.
inline const std::string kUnwritable = "/proc/ckptring-cannot-write-here";

class Contract : public testing::TestWithParam<Path> {
 protected:
  /// Saves, trains on, and waits until it is durable.
  SaveReport save(const std::string& name, const StateDict& state,
                  const SaveOptions& options = {}) {
    const StateDict there = placed(state);
    const SaveHandle handle = checkpointer->save(directory / name, there, options);
    train_on(handle, there);
    return handle.written.get();
  }

  TemporaryDirectory directory;
  std::unique_ptr<Checkpointer> checkpointer = make_checkpointer(GetParam());
};

#define CKPTRING_ALL_PATHS(suite)                                                             \
  INSTANTIATE_TEST_SUITE_P(                                                                   \
      Paths, suite,                                                                           \
      testing::Values(ckptring::test::Path::sync, ckptring::test::Path::async,                \
                      ckptring::test::Path::sync_custom, ckptring::test::Path::async_custom), \
      testing::PrintToStringParamName())

}  // namespace ckptring::test
