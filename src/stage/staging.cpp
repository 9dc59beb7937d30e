#include "stage/staging.h"

#include "os/clock.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace ckptring::stage {
namespace {

/// Copies from a device are begun for so many blocks at once: a call of the driver costs some
/// microseconds, in which a device copies a good part of a block.
constexpr std::size_t kBlocksTogether = 8;

/// Behind the file's last byte from a device; 0 if there is none.
std::uint64_t end_of_devices(const StageRequest& request) {
  std::uint64_t end = 0;
  for (const plan::Payload& payload : request.plan.payloads()) {
    if (request.sources[payload.source].place == kHost) continue;
    end = std::max(end, payload.file_offset + payload.size);
  }
  return end;
}

}  // namespace

Staging::Staging(ring::Producer& producer, const StageRequest& request, int stop_fd)
    : producer_(producer),
      request_(request),
      stop_fd_(stop_fd),
      devices_end_(end_of_devices(request)) {}

void Staging::work() noexcept {
  for (;;) {
    try {
      const std::shared_ptr<BlockFill> fill = next();
      if (!fill) return;
      if (has_failed_.load(std::memory_order_relaxed)) {  // a hint: nobody will read the blocks
        fill->give_up(nullptr);
      } else {
        fill->copy_from_host();
      }
    } catch (...) {  // out of memory, as a rule; what was begun still has to end
      fail(std::current_exception());
    }
  }
}

/// Blocks whose bytes from the host the calling thread is to copy.
std::shared_ptr<BlockFill> Staging::next() {
  const std::scoped_lock lock(claiming_);
  for (;;) {
    if (!may_claim()) {
      stop_claiming();
    } else if (std::shared_ptr<BlockFill> fill = begin_blocks()) {
      try {
        for_host_.push_back(fill);
      } catch (...) {
        fill->give_up(std::current_exception());
        throw;
      }
      if (from_devices_left()) continue;
      tell_enqueued();
    }
    if (!for_host_.empty()) {
      std::shared_ptr<BlockFill> fill = std::move(for_host_.front());
      for_host_.pop_front();
      return fill;
    }
    if (stopped_) return nullptr;
    if (!wait_for_slot()) stop_claiming();
  }
}

bool Staging::may_claim() const {
  // A hint: the failure itself is read under its mutex.
  return !stopped_ && !has_failed_.load(std::memory_order_relaxed) && !producer_.all_claimed() &&
         !producer_.current_failed();
}

bool Staging::from_devices_left() const { return claimed_to_ < devices_end_; }

void Staging::stop_claiming() {
  stopped_ = true;
  tell_enqueued();
}

void Staging::tell_enqueued() {
  if (std::exchange(told_enqueued_, true)) return;
  if (request_.enqueued) request_.enqueued();
}

/// Null if no block is free.
std::shared_ptr<BlockFill> Staging::begin_blocks() {
  const auto claims = std::make_shared<Claims>();
  BlockCopies copies;
  do {
    std::optional<ring::BlockClaim> claim = producer_.try_claim();
    if (!claim) break;
    copies.add(request_.plan, request_.sources, claim->file_offset(), claim->bytes());
    claimed_to_ = claim->file_offset() + claim->bytes().size();
    claims->push_back(*std::move(claim));
  } while (!copies.from_devices().empty() && from_devices_left() &&
           claims->size() < kBlocksTogether);
  if (claims->empty()) return nullptr;
  {
    const std::scoped_lock lock(ending_);
    ++fills_out_;
  }
  try {
    return BlockFill::begin(
        std::move(copies), request_.devices, request_.name_of,
        [this, claims](const std::exception_ptr& failure) { end_blocks(*claims, failure); });
  } catch (...) {
    const std::scoped_lock lock(ending_);
    --fills_out_;
    throw;
  }
}

/// False if staging is to end.
bool Staging::wait_for_slot() {
  const std::uint64_t began = os::monotonic_ns();
  bool moved = false;
  try {
    // Ends by the consumer, or by whoever watches its process and its time-outs. Blocks that could
    // not be filled become void, and the consumer passes over them.
    moved = producer_.wait_for_slot(stop_fd_, os::Deadline::never());
  } catch (...) {
    fail(std::current_exception());
  }
  stalled_seconds_ += os::seconds_since(began);
  return moved;
}

void Staging::end_blocks(Claims& claims, const std::exception_ptr& failure) {
  if (failure) {
    fail(failure);
  } else {
    check_full(claims);
  }
  // After a failure the save is aborted, whether or not these blocks are full.
  if (!has_failed_.load(std::memory_order_relaxed)) {
    for (ring::BlockClaim& claim : claims) claim.publish();
  }
  claims.clear();  // what was not published becomes void
  const std::scoped_lock lock(ending_);
  if (--fills_out_ == 0) ended_.notify_all();
}

void Staging::check_full(Claims& claims) {
  if (!request_.check_full) return;
  try {
    for (ring::BlockClaim& claim : claims) request_.check_full(claim.file_offset(), claim.bytes());
  } catch (...) {
    fail(std::current_exception());
  }
}

void Staging::fail(const std::exception_ptr& failure) {
  const std::scoped_lock lock(ending_);
  if (!failure_) failure_ = failure;
  has_failed_.store(true, std::memory_order_relaxed);
}

StageResult Staging::finish() {
  std::unique_lock lock(ending_);
  // Copies from devices end by themselves, or with their context. Where a device hangs, they do
  // not, and whoever ends the checkpointer leaves this thread behind.
  ended_.wait(lock, [this] { return fills_out_ == 0; });
  if (failure_) std::rethrow_exception(failure_);
  return {producer_.all_claimed() && !producer_.current_failed(), stalled_seconds_};
}

}  // namespace ckptring::stage
