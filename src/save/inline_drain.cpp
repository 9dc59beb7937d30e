#include "save/inline_drain.h"

#include "base/align.h"
#include "os/eventfd.h"
#include "os/poll.h"
#include "stage/block_fill.h"

#include <algorithm>
#include <array>
#include <utility>

namespace ckptring::save {
namespace {

constexpr std::uint64_t kBlockBytes = PrivateBlocks::kBlockBytes;

}  // namespace

PrivateTables::PrivateTables(const plan::FilePlan& plan) {
  const auto sizes = store::DrainTableSizes::of(plan, kBlockBytes);
  memory_.resize(base::ceil_div(sizes.bytes(), sizeof(std::uint64_t)));
  const auto bytes = std::as_writable_bytes(std::span(memory_));
  store::fill_drain_tables(plan, kBlockBytes, sizes, bytes);
  tables_ = store::drain_tables_in(bytes, sizes);
}

InlineDrain::InlineDrain(const SaveJob& job, store::SaveSink& sink, PrivateBlocks& blocks,
                         stage::DeviceCopies* devices)
    : job_(job),
      sink_(sink),
      blocks_(blocks),
      devices_(devices),
      total_(job.plan.total_bytes()),
      tables_(job.plan),
      drain_(tables_.tables(), kBlockBytes, total_) {
  if (devices_ == nullptr) return;
  filled_bell_ = std::make_shared<const os::UninheritedFd>(
      os::UninheritedFd::made_by([] { return os::make_eventfd(); }));
}

InlineDrain::~InlineDrain() {
  // Copies from devices end by themselves, or with their context.
  for (const std::shared_ptr<Filling>& filling : filling_) filling->ended.wait(false);
}

void InlineDrain::run() {
  for (;;) {
    const bool took = take_filled();
    submit_filled();
    if (reap() || took) continue;
    if (filled_to_ < total_ && blocks_.has_free()) {
      fill_next();
    } else if (in_flight_ > 0 || !filling_.empty()) {
      wait();
    } else {
      return;
    }
  }
}

void InlineDrain::fill_next() {
  const std::size_t index = blocks_.take();
  const std::uint64_t size = std::min(kBlockBytes, total_ - filled_to_);
  const auto block = blocks_.at(index).first(static_cast<std::size_t>(size));
  stage::BlockCopies copies;
  copies.add(job_.plan, job_.sources, filled_to_, block);

  auto filling = std::make_shared<Filling>();
  filling->extent = {index, filled_to_, block.data(), size,
                     base::align_up(size, store::Extent::kUnit)};
  if (!copies.from_devices().empty()) filling->bell = filled_bell_;
  const auto fill = stage::BlockFill::begin(std::move(copies), devices_, job_.name_of,
                                            [filling](const std::exception_ptr& failure) {
                                              filling->failure = failure;
                                              const auto bell = filling->bell;
                                              // Pairs with the load in take_filled: the block is
                                              // full.
                                              filling->ended.store(true, std::memory_order_release);
                                              filling->ended.notify_all();
                                              if (bell) os::ring_bell(bell->get());
                                            });
  try {
    filling_.push_back(filling);
  } catch (...) {
    fill->give_up(std::current_exception());
    filling->ended.wait(false);  // for the devices
    throw;
  }
  filled_to_ += size;
  fill->copy_from_host();
}

/// Blocks become final in file order.
bool InlineDrain::take_filled() {
  bool took = false;
  // Pairs with the store in fill_next.
  while (!filling_.empty() && filling_.front()->ended.load(std::memory_order_acquire)) {
    Filling& first = *filling_.front();
    if (first.failure) std::rethrow_exception(first.failure);
    drain_.finalize(first.extent.file_offset,
                    std::span(first.extent.data, static_cast<std::size_t>(first.extent.size)));
    filled_.push_back(first.extent);
    filling_.pop_front();
    took = true;
  }
  return took;
}

void InlineDrain::submit_filled() {
  for (; !filled_.empty() && sink_.room() > 0; ++in_flight_) {
    sink_.submit(filled_.front());
    filled_.pop_front();
  }
}

bool InlineDrain::reap() {
  done_.clear();
  sink_.reap(done_);
  for (const std::uint64_t token : done_) blocks_.give_back(static_cast<std::size_t>(token));
  in_flight_ -= done_.size();
  return !done_.empty();
}

/// A write or a copy that hangs in the kernel holds this thread just as a plain one would.
void InlineDrain::wait() {
  std::array<os::Waitable, 2> ends{os::Waitable{in_flight_ > 0 ? sink_.completion_fd() : -1},
                                   os::Waitable{filled_bell_ ? filled_bell_->get() : -1}};
  (void)os::wait_any(ends, os::Deadline::never());
  if (ends[1].ready) os::clear_bell(filled_bell_->get());
}

}  // namespace ckptring::save
