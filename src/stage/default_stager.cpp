#include "stage/default_stager.h"

#include "os/clock.h"
#include "os/poll.h"
#include "os/thread_count.h"
#include "stage/fill_block.h"

#include <ckptring/error.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <thread>

namespace ckptring::stage {

DefaultStager::DefaultStager(const CheckpointStagerConfig& config)
    : threads_(os::thread_count("copy_threads", config.copy_threads, 2), "ckptring-copy",
               os::ThreadTeam::Priority::background) {}

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
