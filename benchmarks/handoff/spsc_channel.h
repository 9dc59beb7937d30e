// Blocks through boost::lockfree::spsc_queue: it carries their numbers, in order, and the blocks
// lie beside it in shared memory. Its sides can only spin.
#pragma once

#include "handoff/blocks.h"
#include "support/shared_object.h"
#include "support/warm_memory.h"

#include <algorithm>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstdint>
#include <span>

namespace bench {

class SpscChannel {
 public:
  static constexpr std::size_t kCapacity = 1024;
  using Queue = boost::lockfree::spsc_queue<std::uint32_t, boost::lockfree::capacity<kCapacity>>;

  /// @param shape at most kCapacity slots
  /// @throws std::system_error
  explicit SpscChannel(const Shape& shape)
      : shape_(shape), blocks_(std::max<std::size_t>(1, shape.block_bytes * shape.slots)) {}
  void open() {}

  class First {
   public:
    First(SpscChannel& channel, std::uint64_t) : channel_(channel), source_(channel.shape_) {}
    void step() {
      // A block is free once its number was taken out. More than `slots` are never under way.
      while (kCapacity - channel_.queue_->write_available() >= channel_.shape_.slots) relax();
      source_.fill(channel_.block(next_));
      while (!channel_.queue_->push(next_)) relax();
      if (++next_ == channel_.shape_.slots) next_ = 0;
    }

   private:
    SpscChannel& channel_;
    BlockSource source_;
    std::uint32_t next_ = 0;
  };

  class Second {
   public:
    Second(SpscChannel& channel, std::uint64_t) : channel_(channel), reader_(channel.shape_) {}
    void step() {
      const auto read = [this](std::uint32_t block) {
        if (channel_.shape_.block_bytes > 0) reader_.read(channel_.block(block));
      };
      while (!channel_.queue_->consume_one(read)) relax();
    }

   private:
    SpscChannel& channel_;
    BlockReader reader_;
  };

 private:
  [[nodiscard]] std::span<std::byte> block(std::uint32_t index) const noexcept {
    return blocks_.bytes().subspan(index * shape_.block_bytes, shape_.block_bytes);
  }

  Shape shape_;
  SharedObject<Queue> queue_;
  WarmMemory blocks_;
};

/// A question through one queue, the answer through another.
class SpscPingPong {
 public:
  void open() {}

  class First {
   public:
    First(SpscPingPong& channel, std::uint64_t) : channel_(channel) {}
    void step() {
      while (!channel_.questions_->push(0)) relax();
      std::uint32_t answer = 0;
      while (!channel_.answers_->pop(answer)) relax();
    }

   private:
    SpscPingPong& channel_;
  };

  class Second {
   public:
    Second(SpscPingPong& channel, std::uint64_t) : channel_(channel) {}
    void step() {
      std::uint32_t question = 0;
      while (!channel_.questions_->pop(question)) relax();
      while (!channel_.answers_->push(question)) relax();
    }

   private:
    SpscPingPong& channel_;
  };

 private:
  SharedObject<SpscChannel::Queue> questions_;
  SharedObject<SpscChannel::Queue> answers_;
};

}  // namespace bench
