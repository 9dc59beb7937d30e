// Blocks through a pipe or a socket, which the kernel copies in and out, and words through them or
// a pair of eventfds.
#pragma once

#include "handoff/blocks.h"

#include "os/unique_fd.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bench {

/// Where one side writes and where the other side reads it.
struct WayThrough {
  ckptring::os::UniqueFd in;
  ckptring::os::UniqueFd out;
};

/// A pipe of 1 MiB, or as large as the system allows.  @throws std::system_error
WayThrough make_pipe();
/// A pair of Unix stream sockets.  @throws std::system_error
WayThrough make_socket();

/// Writes or reads all of it. Sleeps while the way is full, or empty.
/// @throws std::system_error, std::runtime_error if the other side is gone
void write_all(int fd, std::span<const std::byte> bytes);
void read_all(int fd, std::span<std::byte> bytes);

/// A stream of blocks, one behind the other.
class DescriptorChannel {
 public:
  DescriptorChannel(const Shape& shape, WayThrough way);
  void open() {}

  class First {
   public:
    First(DescriptorChannel& channel, std::uint64_t) : channel_(channel), source_(channel.shape_) {}
    void step() { write_all(channel_.way_.in.get(), source_.next()); }

   private:
    DescriptorChannel& channel_;
    BlockSource source_;
  };

  class Second {
   public:
    Second(DescriptorChannel& channel, std::uint64_t)
        : channel_(channel), reader_(channel.shape_), block_(carried_bytes(channel.shape_)) {}
    void step() {
      read_all(channel_.way_.out.get(), block_);
      reader_.read(block_);
    }

   private:
    DescriptorChannel& channel_;
    BlockReader reader_;
    std::vector<std::byte> block_;
  };

 private:
  Shape shape_;
  WayThrough way_;
};

/// A word one way, a word back. Eventfds carry words as well.
class DescriptorPingPong {
 public:
  enum class Sleep {
    in_read,
    in_poll,  ///< then read: as who also waits for something else must
  };
  enum class Over { pipes, sockets, eventfds };

  /// @throws std::system_error
  DescriptorPingPong(Over over, Sleep sleep);
  void open() {}

  class First {
   public:
    First(DescriptorPingPong& channel, std::uint64_t) : channel_(channel) {}
    void step() {
      tell(channel_.questions_);
      channel_.hear(channel_.answers_);
    }

   private:
    DescriptorPingPong& channel_;
  };

  class Second {
   public:
    Second(DescriptorPingPong& channel, std::uint64_t) : channel_(channel) {}
    void step() {
      channel_.hear(channel_.questions_);
      tell(channel_.answers_);
    }

   private:
    DescriptorPingPong& channel_;
  };

 private:
  static void tell(const WayThrough& way);
  void hear(const WayThrough& way) const;

  Sleep sleep_;
  WayThrough questions_;
  WayThrough answers_;
};

}  // namespace bench
