// Blocks through boost::interprocess::message_queue, which copies them in and out under a lock in
// shared memory and lets its sides sleep.
#pragma once

#include "handoff/blocks.h"

#include <unistd.h>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bench {

/// One message queue. Its name is gone as soon as it is made; forked children share the memory.
class UnnamedMessageQueue {
 public:
  /// Needs as many bytes of /dev/shm.
  /// @throws boost::interprocess::interprocess_exception
  UnnamedMessageQueue(std::size_t messages, std::size_t message_bytes)
      : removed_before_(remove()),
        queue_(boost::interprocess::create_only, name().c_str(), messages, message_bytes),
        removed_(remove()) {}

  void send(std::span<const std::byte> message) { queue_.send(message.data(), message.size(), 0); }
  /// @param message as long as the longest message
  void receive(std::span<std::byte> message) {
    std::size_t received = 0;
    unsigned priority = 0;
    queue_.receive(message.data(), message.size(), received, priority);
  }

 private:
  static std::string name() { return "ckptring-bench-" + std::to_string(::getpid()); }
  static bool remove() { return boost::interprocess::message_queue::remove(name().c_str()); }

  bool removed_before_;  ///< what an earlier process of this number may have left
  boost::interprocess::message_queue queue_;
  bool removed_;
};

class MessageQueueChannel {
 public:
  explicit MessageQueueChannel(const Shape& shape)
      : shape_(shape), queue_(shape.slots, carried_bytes(shape)) {}
  void open() {}

  class First {
   public:
    First(MessageQueueChannel& channel, std::uint64_t)
        : channel_(channel), source_(channel.shape_) {}
    void step() { channel_.queue_.send(source_.next()); }

   private:
    MessageQueueChannel& channel_;
    BlockSource source_;
  };

  class Second {
   public:
    Second(MessageQueueChannel& channel, std::uint64_t)
        : channel_(channel), reader_(channel.shape_), block_(carried_bytes(channel.shape_)) {}
    void step() {
      channel_.queue_.receive(block_);
      reader_.read(block_);
    }

   private:
    MessageQueueChannel& channel_;
    BlockReader reader_;
    std::vector<std::byte> block_;
  };

 private:
  Shape shape_;
  UnnamedMessageQueue queue_;
};

/// A question through one queue, the answer through another.
class MessageQueuePingPong {
 public:
  MessageQueuePingPong()
      : questions_(1, sizeof(std::uint64_t)), answers_(1, sizeof(std::uint64_t)) {}
  void open() {}

  class First {
   public:
    First(MessageQueuePingPong& channel, std::uint64_t) : channel_(channel) {}
    void step() {
      channel_.questions_.send(word_);
      channel_.answers_.receive(word_);
    }

   private:
    MessageQueuePingPong& channel_;
    std::vector<std::byte> word_ = std::vector<std::byte>(sizeof(std::uint64_t));
  };

  class Second {
   public:
    Second(MessageQueuePingPong& channel, std::uint64_t) : channel_(channel) {}
    void step() {
      channel_.questions_.receive(word_);
      channel_.answers_.send(word_);
    }

   private:
    MessageQueuePingPong& channel_;
    std::vector<std::byte> word_ = std::vector<std::byte>(sizeof(std::uint64_t));
  };

 private:
  UnnamedMessageQueue questions_;
  UnnamedMessageQueue answers_;
};

}  // namespace bench
