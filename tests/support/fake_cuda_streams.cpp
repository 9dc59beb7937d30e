#include "support/fake_cuda_streams.h"

#include "support/failing_allocations.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <utility>

namespace ckptring::test::fake_cuda {
namespace {

thread_local bool in_work = false;

/// Pieces that a copy is cut into at most.
constexpr std::size_t kPieces = 4;

bool is_held(const Work& work) { return work.held != nullptr && *work.held; }

bool uses(const Work& work, const Resource& resource) {
  return std::any_of(work.uses.begin(), work.uses.end(),
                     [&](const auto& used) { return used.get() == &resource; });
}

bool may_run(const Stream& stream) {
  if (stream.work.empty() || is_held(stream.work.front())) return false;
  const std::vector<Point>& after = stream.work.front().after;
  return std::all_of(after.begin(), after.end(),
                     [](const Point& point) { return point.reached(); });
}

/// A stream whose first work brings the point nearer and may run; none where all is held.
/// Events record what was enqueued before, so this cannot go round in a circle.
Stream* leads_to(const Point& point) {
  if (point.reached()) return nullptr;
  Stream& stream = *point.stream;
  if (is_held(stream.work.front())) return nullptr;
  bool blocked = false;
  for (const Point& before : stream.work.front().after) {
    if (before.reached()) continue;
    if (Stream* const first = leads_to(before)) return first;
    blocked = true;
  }
  return blocked ? nullptr : &stream;
}

/// The furthest position of each stream that is reached before a point is.
using Reach = std::map<const Stream*, std::uint64_t>;

void add_before(const Point& point, Reach& reach) {
  if (point.stream == nullptr) return;
  const Stream& stream = *point.stream;
  std::uint64_t& known = reach[&stream];
  const std::uint64_t from = std::max(known, stream.ended);
  known = std::max(known, point.position);
  for (std::uint64_t at = from; at < point.position; ++at) {
    const std::vector<Point>& after = stream.work[at - stream.ended].after;
    for (const Point& before : after) add_before(before, reach);
  }
}

}  // namespace

bool doing_stream_work() { return in_work; }

bool Point::reached() const { return stream == nullptr || stream->ended >= position; }

Streams::Streams(std::mutex& mutex, Schedule schedule)
    : mutex_(mutex), schedule_(schedule), random_(schedule_.seed()) {
  if (schedule_.kind() == Schedule::Kind::random) {
    constexpr double kBursts[] = {0, 0.5, 0.9};
    constexpr double kLateness[] = {0, 0.25, 0.7};
    burst_ = kBursts[random_() % std::size(kBursts)];
    lateness_ = kLateness[random_() % std::size(kLateness)];
  }
  thread_ = std::thread([this] { run(); });
}

Streams::~Streams() {
  {
    const Lock lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  thread_.join();
  // Points of work hold streams, which hold work.
  for (const auto& stream : streams_) stream->work.clear();
}

std::shared_ptr<Stream> Streams::create(int device, bool blocking, bool legacy) {
  auto stream = std::make_shared<Stream>();
  stream->device = device;
  stream->blocking = blocking;
  stream->legacy = legacy;
  streams_.push_back(stream);
  return stream;
}

void Streams::retire(Stream& stream) {
  stream.retired = true;
  std::erase_if(streams_, [](const auto& s) { return s->retired && s->work.empty(); });
}

Point Streams::enqueue(const std::shared_ptr<Stream>& stream, Work work) {
  if (broken(stream->device) != cudaSuccess) return {};
  const std::vector<Point> in_turn = in_turn_with(*stream);
  work.after.insert(work.after.end(), in_turn.begin(), in_turn.end());
  for (const auto& resource : work.uses) ++resource->pending;
  work.sequence = ++sequence_;
  work.only_when_needed = chance(lateness_);
  if (schedule_.kind() == Schedule::Kind::late) {
    std::reverse(work.copies.begin(), work.copies.end());
  } else if (schedule_.kind() == Schedule::Kind::random) {
    std::shuffle(work.copies.begin(), work.copies.end(), random_);
  }
  stream->work.push_back(std::move(work));
  ++stream->enqueued;
  changed_.notify_all();
  return {stream, stream->enqueued};
}

Point Streams::tail(const std::shared_ptr<Stream>& stream) {
  // What takes turns with this stream belongs to it as well.
  if (!in_turn_with(*stream).empty()) return enqueue(stream, {});
  return {stream, stream->enqueued};
}

std::vector<Point> Streams::in_turn_with(const Stream& stream) const {
  std::vector<Point> points;
  for (const auto& other : streams_) {
    const bool in_turn =
        stream.legacy ? other->blocking && !other->legacy : stream.blocking && other->legacy;
    if (in_turn && other->device == stream.device && !other->work.empty()) {
      points.push_back({other, other->enqueued});
    }
  }
  return points;
}

void Streams::wait(Lock& lock, const Point& point) {
  if (point.reached()) return;
  const auto need = needs_.insert(needs_.end(), point);
  changed_.notify_all();
  changed_.wait(lock, [&] { return point.reached(); });
  needs_.erase(need);
}

void Streams::release(bool& held) {
  held = false;
  changed_.notify_all();
}

std::size_t Streams::wait_for_everything(Lock& lock) {
  std::size_t held = 0;
  const auto streams = streams_;
  for (const auto& stream : streams) {
    for (Work& work : stream->work) {
      if (!is_held(work)) continue;
      ++held;
      release(*work.held);
    }
  }
  for (const auto& stream : streams) wait(lock, {stream, stream->enqueued});
  return held;
}

void Streams::abandon(Lock& lock, const Resource& resource) {
  for (const auto& stream : streams_) {
    for (Work& work : stream->work) {
      if (uses(work, resource)) work.abandoned = true;
    }
  }
  changed_.wait(lock,
                [&] { return running_ == nullptr || !uses(running_->work.front(), resource); });
}

bool Streams::uses_end_before(const Resource& resource, std::span<const Point> points) const {
  if (resource.pending == 0) return true;
  Reach reach;
  for (const Point& point : points) add_before(point, reach);
  for (const auto& stream : streams_) {
    const auto found = reach.find(stream.get());
    const std::uint64_t before = found == reach.end() ? 0 : found->second;
    for (std::uint64_t at = std::max(before, stream->ended); at < stream->enqueued; ++at) {
      if (uses(stream->work[at - stream->ended], resource)) return false;
    }
  }
  return true;
}

void Streams::break_at_copy(unsigned nth, cudaError_t error) {
  copies_until_break_ = nth;
  break_error_ = error;
}

void Streams::break_device(Lock& lock, int device, cudaError_t error) {
  changed_.wait(lock, [&] { return running_ == nullptr || running_->device != device; });
  end_all(device, error);
}

cudaError_t Streams::broken(int device) const {
  const auto found = broken_.find(device);
  return found == broken_.end() ? cudaSuccess : found->second;
}

void Streams::run() {
  const NotFailing memory;
  Lock lock(mutex_);
  while (!stop_ || !done_.empty()) {
    if (!done_.empty()) {
      // What a kernel holds may call back when it goes.
      std::vector<Work> done = std::exchange(done_, {});
      lock.unlock();
      done.clear();
      lock.lock();
      continue;
    }
    Stream* const next = choose();
    if (next == nullptr) {
      changed_.wait(lock);
    } else {
      step(lock, *next);
    }
    std::erase_if(streams_, [](const auto& s) { return s->retired && s->work.empty(); });
    if (schedule_.kind() == Schedule::Kind::random && chance(0.2)) {
      // The host gets in between. Not by a yield, which costs a turn of everybody else's where
      // there are more threads than processors.
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::microseconds(1));
      lock.lock();
    }
  }
}

Stream* Streams::choose() {
  if (schedule_.kind() == Schedule::Kind::random) return choose_by_chance();
  if (schedule_.kind() == Schedule::Kind::late) {
    for (const Point& need : needs_) {
      if (Stream* const first = leads_to(need)) return first;
    }
    return nullptr;
  }
  Stream* oldest = nullptr;
  for (const auto& stream : streams_) {
    if (!may_run(*stream)) continue;
    if (oldest == nullptr || stream->work.front().sequence < oldest->work.front().sequence) {
      oldest = stream.get();
    }
  }
  return oldest;
}

Stream* Streams::choose_by_chance() {
  std::vector<Stream*> needed;
  for (const Point& need : needs_) {
    if (Stream* const first = leads_to(need)) needed.push_back(first);
  }
  std::vector<Stream*> candidates;
  for (const auto& stream : streams_) {
    if (!may_run(*stream)) continue;
    if (stream->work.front().only_when_needed &&
        std::find(needed.begin(), needed.end(), stream.get()) == needed.end()) {
      continue;
    }
    candidates.push_back(stream.get());
  }
  if (candidates.empty()) return nullptr;
  const auto again = std::find(candidates.begin(), candidates.end(), last_);
  last_ = again != candidates.end() && chance(burst_) ? *again
                                                      : candidates[random_() % candidates.size()];
  return last_;
}

void Streams::step(Lock& lock, Stream& stream) {
  Work& work = stream.work.front();
  const auto outside_the_lock = [&](const auto& what) {
    running_ = &stream;
    lock.unlock();
    in_work = true;
    what();
    in_work = false;
    lock.lock();
    running_ = nullptr;
    changed_.notify_all();
  };
  if (!work.abandoned && work.copy < work.copies.size()) {
    if (work.may_be_broken && work.done == 0 && copies_until_break_ > 0 &&
        --copies_until_break_ == 0) {
      end_all(stream.device, break_error_);
      return;
    }
    const Copy& copy = work.copies[work.copy];
    const std::size_t size = piece_of(work);
    outside_the_lock([&] { std::memcpy(copy.to + work.done, copy.from + work.done, size); });
    work.done += size;
    if (work.done == copy.bytes) {
      ++work.copy;
      work.done = 0;
    }
    if (work.copy < work.copies.size()) return;
  }
  if (!work.abandoned && work.kernel) outside_the_lock(work.kernel);
  end_first(stream);
}

std::size_t Streams::piece_of(const Work& work) {
  const std::size_t all = work.copies[work.copy].bytes;
  const std::size_t left = all - work.done;
  const std::size_t least = all / kPieces + 1;
  if (schedule_.kind() != Schedule::Kind::random || left <= least) return left;
  return least + random_() % (left - least + 1);
}

void Streams::end_first(Stream& stream) {
  Work& work = stream.work.front();
  for (const auto& resource : work.uses) --resource->pending;
  done_.push_back(std::move(work));
  stream.work.pop_front();
  ++stream.ended;
  changed_.notify_all();
}

void Streams::end_all(int device, cudaError_t error) {
  broken_.emplace(device, error);
  for (const auto& stream : streams_) {
    while (stream->device == device && !stream->work.empty()) end_first(*stream);
  }
}

bool Streams::chance(double probability) {
  if (probability <= 0) return false;
  return std::uniform_real_distribution<double>(0, 1)(random_) < probability;
}

}  // namespace ckptring::test::fake_cuda
