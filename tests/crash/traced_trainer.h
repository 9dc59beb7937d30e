// The trainer that the crash tests run: small blocks, a ring much smaller than the file, and
// a tracer at the helper's gate.
#pragma once

#include "crash/helper_tracer.h"
#include "save/async_save.h"

#include <ckptring/config.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <string>

namespace ckptring::test {

inline constexpr std::uint64_t kSmallBlock = 16 << 10;

inline CheckpointerConfig small_config(WriteMode mode, std::uint64_t ring_blocks) {
  CheckpointerConfig config;
  config.process_config.executable = GATED_DRAIN_PATH;
  config.process_config.block_bytes = kSmallBlock;
  config.process_config.ring_bytes = ring_blocks * kSmallBlock;
  config.writer_config.mode = mode;
  config.writer_config.threads = 2;
  return config;
}

/// Tests whose helpers are followed are skipped where that is refused.
template <class Base>
class OfTracedTrainers : public Base {
 protected:
  void SetUp() override {
    Base::SetUp();
    if (Base::IsSkipped()) return;
    const std::string refusal = refusal_of_ptrace();
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
};

/// A checkpointer whose helpers are followed. Between `meet` and `release` the next helper stands
/// at the gate.
class TracedTrainer {
 public:
  explicit TracedTrainer(const CheckpointerConfig& config)
      : async_(std::make_unique<save::AsyncSave>(config, RankInfo{})) {}
  /// A checkpointer that still stages waits for its helper.
  ~TracedTrainer() { tracer_.release({}); }
  TracedTrainer(const TracedTrainer&) = delete;
  TracedTrainer& operator=(const TracedTrainer&) = delete;

  save::AsyncSave& async() { return *async_; }
  HelperTracer& tracer() { return tracer_; }

  /// Replaces the idle helper, if there is one, by a new one that waits at the gate.
  void meet_new_helper() {
    // Not process_id(): that may still be a dead one's, while its successor passes the gate.
    const pid_t idle = tracer_.close_gate();
    if (idle > 0) (void)::kill(idle, SIGKILL);
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
};

}  // namespace ckptring::test
