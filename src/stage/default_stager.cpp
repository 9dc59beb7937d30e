#include "stage/default_stager.h"

#include "os/clock.h"
#include "os/poll.h"
#include "stage/fill_block.h"

#include <ckptring/error.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <thread>

namespace ckptring::stage {
namespace {

constexpr unsigned kMostThreads = 256;
constexpr unsigned kMostDefaultThreads = 8;

unsigned thread_count(const CheckpointStagerConfig& config) {
  if (config.copy_threads > kMostThreads) {
    throw Error(ErrorCode::invalid_argument, "configure staging", "",
                "copy_threads must be at most 256, and is " + std::to_string(config.copy_threads));
  }
  if (config.copy_threads != 0) return config.copy_threads;
  return std::clamp(std::thread::hardware_concurrency() / 2, 1u, kMostDefaultThreads);
}

}  // namespace

DefaultStager::DefaultStager(const CheckpointStagerConfig& config)
    : threads_(thread_count(config), "ckptring-copy", os::ThreadTeam::Priority::background) {}

StageResult DefaultStager::stage(ring::Producer& producer, const plan::FilePlan& plan,
                                 std::span<const Source> sources, int stop_fd) {
  StageResult result;
  std::mutex claiming;
  bool ended = false;          // guarded by claiming
  std::exception_ptr failure;  // likewise

  const auto next_claim = [&]() -> std::optional<ring::BlockClaim> {
    const std::scoped_lock lock(claiming);
    while (!ended && !producer.all_claimed()) {
      if (producer.current_failed()) break;
      if (auto claim = producer.try_claim()) return claim;
      const std::uint64_t began = os::monotonic_ns();
      bool moved = false;
      try {
        // Ends by the consumer, or by whoever watches its process and its time-outs.
        moved = producer.wait_for_slot(stop_fd, os::Deadline::never());
      } catch (...) {
        failure = std::current_exception();
      }
      result.stalled_seconds += os::seconds_since(began);
      if (!moved) break;
    }
    ended = true;
    return std::nullopt;
  };
  threads_.run([&] {
    while (auto claim = next_claim()) {
      fill_block(plan, sources, claim->file_offset(), claim->bytes());
      claim->publish();
    }
  });
  if (failure) std::rethrow_exception(failure);
  result.complete = producer.all_claimed() && !producer.current_failed();
  return result;
}

}  // namespace ckptring::stage
