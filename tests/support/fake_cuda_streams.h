// The devices of the stand-in for CUDA at work: streams, what is enqueued in them, and the thread
// that does it in the order of a Schedule. Knows nothing of handles, pointers and errors of calls.
#pragma once

#include "stage/cuda_runtime.h"
#include "support/fake_cuda_schedule.h"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <thread>
#include <vector>

namespace ckptring::test::fake_cuda {

struct Stream;

/// A place in a stream: reached once its first `position` pieces of work have ended.
struct Point {
  std::shared_ptr<Stream> stream;  ///< none: always reached
  std::uint64_t position = 0;

  [[nodiscard]] bool reached() const;
};

/// Memory that work uses, of either side.
struct Resource {
  std::size_t pending = 0;  ///< pieces of work that use it and have not ended
};

/// In addresses of this process.
struct Copy {
  std::byte* to;
  const std::byte* from;
  std::size_t bytes;
};

struct Work {
  std::vector<Point> after;  ///< beside what was enqueued before it in its stream
  std::vector<Copy> copies;
  bool may_be_broken = false;  ///< its copies are among those that break_at_copy counts
  std::function<void()> kernel;
  std::shared_ptr<bool> held;  ///< does not run while true
  std::vector<std::shared_ptr<Resource>> uses;
  std::vector<std::shared_ptr<void>> keeps;

  // Of the thread that does it:
  std::uint64_t sequence = 0;
  bool only_when_needed = false;
  bool abandoned = false;
  std::size_t copy = 0;  ///< the one that is being done
  std::size_t done = 0;  ///< bytes of it
};

struct Stream {
  int device = 0;
  bool legacy = false;    ///< the NULL stream of its device
  bool blocking = false;  ///< takes turns with the NULL stream
  bool retired = false;   ///< destroyed; goes once it is empty
  std::deque<Work> work;
  std::uint64_t enqueued = 0;
  std::uint64_t ended = 0;
};

/// Whether this thread is doing the work of a stream just now.
bool doing_stream_work();

/// Everything is called with the lock of `mutex` held; what takes a Lock may release it meanwhile.
class Streams {
 public:
  using Lock = std::unique_lock<std::mutex>;

  Streams(std::mutex& mutex, Schedule schedule);
  ~Streams();  ///< without the lock; what was not done is dropped
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  std::shared_ptr<Stream> create(int device, bool blocking, bool legacy = false);
  void retire(Stream& stream);

  /// Puts the work at the end of the stream, and returns the point behind it.
  Point enqueue(const std::shared_ptr<Stream>& stream, Work work);
  /// All that the stream holds now: what an event records.
  Point tail(const std::shared_ptr<Stream>& stream);
  /// Until the point is reached, which its work is thereby asked for.
  void wait(Lock& lock, const Point& point);
  [[nodiscard]] std::size_t waiting() const noexcept { return needs_.size(); }
  void release(bool& held);
  /// Waits for all that is not held. Returns how much of it is.
  std::size_t wait_for_everything(Lock& lock);

  /// Lets what uses the resource end without having been done.
  void abandon(Lock& lock, const Resource& resource);
  /// Whether all work that uses the resource comes before one of the points in every schedule.
  [[nodiscard]] bool uses_end_before(const Resource& resource, std::span<const Point> points) const;

  /// The nth copy that is begun from now on fails with this error, and so its device.
  void break_at_copy(unsigned nth, cudaError_t error);
  /// Work of the device's streams ends without having been done.
  void break_device(Lock& lock, int device, cudaError_t error);
  /// What broke the device, or cudaSuccess.
  [[nodiscard]] cudaError_t broken(int device) const;

 private:
  void run();
  /// What work of the stream waits for because of the NULL stream.
  [[nodiscard]] std::vector<Point> in_turn_with(const Stream& stream) const;
  Stream* choose();
  Stream* choose_by_chance();
  void step(Lock& lock, Stream& stream);
  void end_first(Stream& stream);
  void end_all(int device, cudaError_t error);
  [[nodiscard]] std::size_t piece_of(const Work& work);
  [[nodiscard]] bool chance(double probability);

  std::mutex& mutex_;
  std::condition_variable changed_;
  Schedule schedule_;
  std::mt19937_64 random_;
  double burst_ = 0;     ///< how likely a stream goes on rather than another one
  double lateness_ = 0;  ///< how likely work waits until it is needed
  std::vector<std::shared_ptr<Stream>> streams_;
  std::list<Point> needs_;
  std::map<int, cudaError_t> broken_;
  unsigned copies_until_break_ = 0;
  cudaError_t break_error_ = cudaSuccess;
  std::uint64_t sequence_ = 0;
  std::vector<Work> done_;  ///< not yet taken down
  Stream* last_ = nullptr;
  Stream* running_ = nullptr;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ckptring::test::fake_cuda
