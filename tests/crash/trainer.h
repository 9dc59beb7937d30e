// The trainer that the crash tests run: small blocks, a ring much smaller than the file, and
// a tracer at the helper's gate.
#pragma once

#include "crash/helper_tracer.h"
#include "save/async_save.h"
#include "save/sync_save.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/config.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>

namespace ckptring::test {

inline constexpr std::uint64_t kSmallBlock = 16 << 10;

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

inline CheckpointerConfig small_config(WriteMode mode, std::uint64_t ring_blocks) {
  CheckpointerConfig config;
  config.process_config.executable = GATED_DRAIN_PATH;
  config.process_config.block_bytes = kSmallBlock;
  config.process_config.ring_bytes = ring_blocks * kSmallBlock;
  config.writer_config.mode = mode;
  config.writer_config.threads = 2;
  return config;
}

/// The file of these storages as the sync path writes it.
inline std::string undisturbed_file(const std::string& directory,
                                    std::shared_ptr<Storages> storages) {
  save::SyncSave sync({}, {}, {});
  return contents_of(sync.run(job_for(directory, std::move(storages))).path);
}

inline std::ptrdiff_t entries_of(const std::string& directory) {
  return std::distance(std::filesystem::directory_iterator(directory), {});
}

inline std::ptrdiff_t open_descriptors() { return entries_of("/proc/self/fd"); }

/// Whether this process has any child left, ended ones included.
inline bool has_children() {
  ::siginfo_t event{};
  return ::waitid(P_ALL, 0, &event, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0;
}

/// A checkpointer whose helpers are followed. Between `meet` and `release` the next helper stands
/// at the gate.
class Trainer {
 public:
  explicit Trainer(const CheckpointerConfig& config)
      : async_(std::make_unique<save::AsyncSave>(config, RankInfo{})) {}
  /// A checkpointer that still stages waits for its helper.
  ~Trainer() { tracer_.release({}); }
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  save::AsyncSave& async() { return *async_; }
  HelperTracer& tracer() { return tracer_; }

  /// Replaces the idle helper, if there is one, by a new one that waits at the gate.
  void meet_new_helper() {
    tracer_.close_gate();
    const int idle = async_->process_id();
    if (met_ && idle > 0) (void)::kill(idle, SIGKILL);
    met_ = true;
    tracer_.wait_for_helper();
  }

  /// Ends the checkpointer and its helper.
  void close() {
    tracer_.release({});
    async_->close();
    async_.reset();
  }

 private:
  HelperTracer tracer_;  // outlives the checkpointer
  std::unique_ptr<save::AsyncSave> async_;
  bool met_ = false;
};

}  // namespace ckptring::test
