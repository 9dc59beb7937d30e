#include "handoff/ring_channel.h"

#include "ring/warm.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <utility>

namespace bench {
namespace {

namespace os = ckptring::os;
namespace ring = ckptring::ring;

constexpr std::uint64_t kSave = 1;  ///< all blocks are those of one save

/// A descriptor that forked children keep, unlike a segment's own.
os::UniqueFd duplicate(int fd) {
  os::UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) throw ckptring::Error::from_errno(errno, "duplicate a descriptor", "");
  return copy;
}

}  // namespace

RingChannel::RingChannel(const Shape& shape, Wait wait, bool answers_late)
    : shape_(shape),
      wait_(wait),
      answers_late_(answers_late),
      data_(os::make_eventfd()),
      space_(os::make_eventfd()),
      result_(os::make_eventfd()) {
  const ring::Segment made = ring::Segment::create(
      {.block_bytes = std::max<std::uint64_t>(shape.block_bytes, ring::kBlockAlignment),
       .slot_count = shape.slots,
       .record_count = 2,
       .plan_bytes = ring::kCacheLine},
      {});
  ring::Warmer(made, 0).wait();
  memory_ = duplicate(made.fd());
}

void RingChannel::open() {
  segment_.emplace(ring::Segment::attach(std::move(memory_)));
  measuring_ = os::open_pidfd(::getppid());
}

RingChannel::First::First(RingChannel& channel, std::uint64_t steps)
    : channel_(channel),
      producer_(channel.segment_->view(), channel.bells()),
      source_(channel.shape_) {
  ring::Description description{};
  description.total_bytes = steps * channel.segment_->view().geometry().block_bytes;
  (void)producer_.open(description, [](std::span<std::byte>) {});
}

void RingChannel::First::step() {
  for (;;) {
    if (auto claim = producer_.try_claim()) {
      source_.fill(claim->bytes());
      claim->publish();
      return;
    }
    if (channel_.wait_ == Wait::spin) {
      relax();
    } else if (!producer_.wait_for_slot(channel_.measuring_.get(), os::Deadline::never())) {
      throw std::runtime_error("waited for a free block");
    }
  }
}

RingChannel::Second::Second(RingChannel& channel, std::uint64_t)
    : channel_(channel),
      consumer_(channel.segment_->view(), channel.bells()),
      reader_(channel.shape_) {
  consumer_.start(1);
  std::array<os::Waitable, 1> others{os::Waitable{channel.measuring_.get()}};
  if (!consumer_.sleep([this] { return consumer_.next_save().has_value(); }, others,
                       os::Deadline::never())) {
    throw std::runtime_error("waited for a save");
  }
}

void RingChannel::Second::step() {
  for (;;) {
    if (const auto block = consumer_.try_take(kSave)) {
      if (channel_.shape_.block_bytes > 0) reader_.read(block->memory);
      if (!channel_.answers_late_) {
        consumer_.complete(block->position);
        return;
      }
      if (unanswered_) consumer_.complete(*unanswered_);
      unanswered_ = block->position;
      return;
    }
    if (channel_.wait_ == Wait::spin) {
      relax();
      continue;
    }
    std::array<os::Waitable, 1> others{os::Waitable{channel_.measuring_.get()}};
    if (!consumer_.sleep([this] { return consumer_.can_take(kSave); }, others,
                         os::Deadline::never())) {
      throw std::runtime_error("waited for a block");
    }
  }
}

}  // namespace bench
