// Blocks through the ring of this library: its segment, its two ends, its bells.
#pragma once

#include "handoff/blocks.h"

#include "os/eventfd.h"
#include "os/pidfd.h"
#include "os/unique_fd.h"
#include "ring/consumer.h"
#include "ring/producer.h"
#include "ring/segment.h"

#include <cstdint>
#include <optional>

namespace bench {

enum class Wait {
  spin,   ///< look again and again
  sleep,  ///< as the library does: in poll, on the bell and the other side's death
};

class RingChannel {
 public:
  /// @param answers_late  a block is let go when the next one is taken. With two slots the filling
  ///                      side then has one block to fill at a time, and only once the last one
  ///                      was taken: a question and its answer for each block
  /// @throws ckptring::Error
  RingChannel(const Shape& shape, Wait wait, bool answers_late = false);
  void open();

  class First {
   public:
    First(RingChannel& channel, std::uint64_t steps);
    void step();

   private:
    RingChannel& channel_;
    ckptring::ring::Producer producer_;
    BlockSource source_;
  };

  class Second {
   public:
    Second(RingChannel& channel, std::uint64_t steps);
    void step();

   private:
    RingChannel& channel_;
    ckptring::ring::Consumer consumer_;
    BlockReader reader_;
    std::optional<std::uint64_t> unanswered_;  ///< position of a block that was taken
  };

 private:
  [[nodiscard]] ckptring::ring::Bells bells() const noexcept {
    return {data_.get(), space_.get(), result_.get()};
  }

  Shape shape_;
  Wait wait_;
  bool answers_late_;
  ckptring::os::UniqueFd memory_;
  ckptring::os::UniqueFd data_;
  ckptring::os::UniqueFd space_;
  ckptring::os::UniqueFd result_;
  // Of the process that opened it:
  std::optional<ckptring::ring::Segment> segment_;
  ckptring::os::UniqueFd measuring_;  ///< pidfd of the process that measures
};

}  // namespace bench
