#include "save/capture.h"

#include "base/align.h"
#include "os/clock.h"
#include "os/huge_memory.h"
#include "os/populate.h"

#include <ckptring/error.h>
#include <ckptring/future.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

namespace ckptring::save {
namespace {

/// Captured storages begin at a multiple of this: any element's alignment.
constexpr std::uint64_t kAlignment = 16;
/// So many storages ahead of the one that is copied are asked for.
constexpr std::size_t kAhead = 8;

class HostMemory final : public CaptureMemory {
 public:
  explicit HostMemory(std::uint64_t bytes) : memory_(static_cast<std::size_t>(bytes)) {
    (void)os::populate(memory_.bytes());  // else pages come when they are first used
  }
  [[nodiscard]] std::byte* data() const noexcept override { return memory_.bytes().data(); }
  [[nodiscard]] std::uint64_t size() const noexcept override { return memory_.bytes().size(); }

 private:
  os::HugeMemory memory_;
};

class MemoryOfDevice final : public CaptureMemory {
 public:
  MemoryOfDevice(stage::DeviceCopies& copies, int device, std::uint64_t bytes)
      : memory_(copies.allocate(device, bytes)), bytes_(bytes) {}
  [[nodiscard]] std::byte* data() const noexcept override { return memory_->data(); }
  [[nodiscard]] std::uint64_t size() const noexcept override { return bytes_; }

 private:
  std::unique_ptr<stage::DeviceMemory> memory_;
  std::uint64_t bytes_;
};

std::uint64_t bytes_for(const stage::CaptureAt& selected, std::span<const stage::Source> sources) {
  std::uint64_t bytes = 0;
  for (const std::uint32_t source : selected.sources) {
    bytes += base::align_up(sources[source].size, kAlignment);
  }
  return bytes;
}

/// What CUDA or the system says of memory and devices concerns no key; the first that it was for is
/// named.
Error naming(const std::string& key, const std::string& path, const Error& failure) {
  return {failure.code(), fmt::format("capture key {} for", key), path, failure.what()};
}

/// The same, if there is memory for the words.
std::exception_ptr naming(const std::string& key, const std::string& path,
                          const std::exception_ptr& failure) noexcept {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    try {
      return std::make_exception_ptr(naming(key, path, error));
    } catch (const std::bad_alloc&) {
      return failure;
    }
  } catch (...) {
    return failure;
  }
}

template <class Action>
void naming_first(const SaveJob& job, const stage::CaptureAt& from, Action&& action) {
  try {
    action();
  } catch (const Error& failure) {
    throw naming(job.name(from.sources.front()), job.path, failure);
  }
}

void copy_on_host(std::span<const stage::Copy> copies) {
  for (std::size_t i = 0; i < copies.size(); ++i) {
    if (i + kAhead < copies.size()) __builtin_prefetch(copies[i + kAhead].from);
    std::memcpy(copies[i].to, copies[i].from, static_cast<std::size_t>(copies[i].size));
  }
}

}  // namespace

std::shared_ptr<CaptureMemory> CapturePool::lease(int place, std::uint64_t bytes) {
  std::unique_ptr<CaptureMemory> memory = take_unused(place, bytes);
  if (!memory) memory = make(place, bytes);
  return {memory.release(), [place, pool = weak_from_this()](CaptureMemory* raw) {
            std::unique_ptr<CaptureMemory> back(raw);
            const std::shared_ptr<CapturePool> there = pool.lock();
            if (!there) return;
            const std::scoped_lock lock(there->mutex_);
            there->unused_.push_back({place, std::move(back)});
          }};
}

std::unique_ptr<CaptureMemory> CapturePool::take_unused(int place, std::uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  auto found = unused_.end();
  for (auto one = unused_.begin(); one != unused_.end(); ++one) {
    if (one->place != place || one->memory->size() < bytes) continue;
    if (found == unused_.end() || one->memory->size() < found->memory->size()) found = one;
  }
  if (found == unused_.end()) return nullptr;
  std::unique_ptr<CaptureMemory> memory = std::move(found->memory);
  unused_.erase(found);
  return memory;
}

std::unique_ptr<CaptureMemory> CapturePool::make(int place, std::uint64_t bytes) {
  const auto make_one = [&](std::uint64_t size) -> std::unique_ptr<CaptureMemory> {
    if (place == stage::kHost) return std::make_unique<HostMemory>(size);
    return std::make_unique<MemoryOfDevice>(*devices_.copies(), place, size);
  };
  std::uint64_t too_small = 0;  // the largest one
  {
    const std::scoped_lock lock(mutex_);
    unused_.reserve(++made_);  // giving back needs no memory
    for (const Unused& one : unused_) {
      if (one.place == place) too_small = std::max(too_small, one.memory->size());
    }
  }
  if (too_small == 0) return make_one(bytes);
  try {
    // Twice as large, so that what is too small is never more than this, however often it grows.
    return make_one(std::max(bytes, 2 * too_small));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::out_of_memory) throw;
  }
  release_smaller(place, bytes);
  return make_one(bytes);
}

void CapturePool::release_smaller(int place, std::uint64_t bytes) {
  for (;;) {
    std::unique_ptr<CaptureMemory> memory;  // freed without the lock
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find_if(unused_, [&](const Unused& one) {
      return one.place == place && one.memory->size() < bytes;
    });
    if (found == unused_.end()) return;
    memory = std::move(found->memory);
    unused_.erase(found);
    --made_;
  }
}

Capture::Capture(const CheckpointStagerConfig& config, stage::DeviceAccess& devices)
    : limits_{config.capture_small_bytes, config.capture_volatile_bytes},
      devices_(devices),
      pool_(std::make_shared<CapturePool>(devices)) {}

std::vector<stage::CaptureAt> Capture::select(const SaveJob& job) const {
  return stage::select_captured(job.sources, limits_, job.path,
                                [&](std::uint32_t source) { return job.name(source); });
}

void Capture::prepare(const SaveJob& job, std::span<const stage::CaptureAt> selected) {
  for (const stage::CaptureAt& from : selected) {
    naming_first(job, from, [&] {
      const std::uint64_t bytes = bytes_for(from, job.sources);
      pool_->release_smaller(from.place, bytes);
      (void)pool_->lease(from.place, bytes);
    });
  }
}

void Capture::take(SaveJob& job, std::span<const stage::CaptureAt> selected) {
  const std::uint64_t began = os::monotonic_ns();
  Captured& captured = job.captured;
  captured.sources.resize(job.sources.size());
  for (const stage::CaptureAt& from : selected) {
    naming_first(job, from, [&] { take_from(job, from); });
    captured.bytes += from.bytes;
    captured.storages += from.sources.size();
  }
  captured.seconds = os::seconds_since(began);
}

void Capture::take_from(SaveJob& job, const stage::CaptureAt& from) {
  const std::shared_ptr<CaptureMemory> memory =
      pool_->lease(from.place, bytes_for(from, job.sources));
  std::vector<stage::Copy> copies;
  copies.reserve(from.sources.size());
  std::byte* to = memory->data();
  for (const std::uint32_t index : from.sources) {
    const stage::Source& source = job.sources[index];
    copies.push_back({to, source.data, source.size, index});
    to += base::align_up(source.size, kAlignment);
  }
  if (from.place == stage::kHost) {
    copy_on_host(copies);
  } else {
    copy_on_device(job, from.place, copies, memory);
  }
  job.captured.memory.push_back(memory);
  for (const stage::Copy& copy : copies) {
    job.sources[copy.source].data = copy.to;
    job.captured.sources[copy.source] = true;
  }
}

void Capture::copy_on_device(SaveJob& job, int device, std::span<const stage::Copy> copies,
                             const std::shared_ptr<CaptureMemory>& memory) {
  DeviceState& state = *std::ranges::find(job.devices, device, &DeviceState::device);
  stage::DeviceCopyEngine& engine = devices_.copies()->within(device);
  const auto ended = std::make_shared<Promise<void>>();
  job.captured.on_devices.push_back(ended->future());
  engine.copy_after(*state.ready_at);
  // Whatever becomes of the save, its tensors and this memory last as long as they are used.
  engine.copy(copies, [ended, memory, tensors = job.keep_alive, key = job.name(copies[0].source),
                       path = job.path](const std::exception_ptr& failure) {
    if (failure) {
      ended->set_error(naming(key, path, failure));
    } else {
      ended->set_value();
    }
  });
  state.ready_at = engine.fence(state.stream);
}

}  // namespace ckptring::save
