#include "support/fake_cuda.h"

#include "support/failing_allocations.h"

#include "support/fake_cuda_errors.h"
#include "support/fake_cuda_host_memory.h"
#include "support/fake_cuda_memory.h"
#include "support/fake_cuda_streams.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

namespace ckptring::test {

using fake_cuda::Allocation;
using fake_cuda::DeviceMemory;
using fake_cuda::HostMemory;
using fake_cuda::PinnedRange;
using fake_cuda::Point;
using fake_cuda::Stream;
using fake_cuda::Streams;
using fake_cuda::Work;
using Lock = Streams::Lock;

namespace {

constexpr const char* kNames[] = {
    "cudaGetDeviceCount",
    "cudaGetDevice",
    "cudaSetDevice",
    "cudaStreamCreateWithFlags",
    "cudaStreamDestroy",
    "cudaStreamSynchronize",
    "cudaStreamWaitEvent",
    "cudaStreamIsCapturing",
    "cudaThreadExchangeStreamCaptureMode",
    "cudaEventCreateWithFlags",
    "cudaEventDestroy",
    "cudaEventRecord",
    "cudaEventSynchronize",
    "cudaMemcpyAsync",
    "cudaMemcpyBatchAsync",
    "cudaMalloc",
    "cudaFree",
    "cudaHostRegister",
    "cudaHostUnregister",
    "cudaHostAlloc",
    "cudaFreeHost",
    "cudaGetLastError",
    "cudaGetErrorName",
    "cudaGetErrorString",
};
static_assert(std::size(kNames) == kCalls);

/// Of one thread, for one FakeCuda.
struct ThreadState {
  std::uint64_t generation = 0;
  int device = 0;
  cudaError_t last = cudaSuccess;
  std::uint64_t calls = 0;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
};
thread_local ThreadState thread_state;

std::atomic<FakeCuda::State*> living{nullptr};
std::atomic<std::uint64_t> generations{0};
/// Handles are numbers that nobody can mistake for memory, and are given out once.
std::atomic<std::uintptr_t> handles{0x1000};

template <class Handle>
Handle new_handle() {
  return reinterpret_cast<Handle>(handles.fetch_add(0x10));
}

[[noreturn]] void give_up(const std::string& why) {
  (void)std::fprintf(stderr, "fake CUDA: %s\n", why.c_str());
  std::abort();
}

struct StreamHandle {
  std::shared_ptr<Stream> stream;
  bool of_training = false;
};

/// Into a graph.
struct Captured {
  std::thread::id by;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool lost = false;
};

struct Event {
  int device = 0;
  bool blocking = false;
  Point point;
};

}  // namespace

const char* name(Call call) { return kNames[static_cast<std::size_t>(call)]; }

struct FakeCuda::State {
  State(FakeCuda& object, int device_count, Schedule schedule)
      : owner(object), streams(mutex, schedule) {
    const Lock lock(mutex);  // the devices' thread runs already
    for (int device = 0; device < device_count; ++device) {
      memory.emplace_back(device);
      null_streams.push_back(streams.create(device, true, true));
      null_handles.push_back(new_handle<cudaStream_t>());
      stream_handles[null_handles.back()] = {null_streams.back(), true};
    }
  }

  [[nodiscard]] int devices() const { return static_cast<int>(memory.size()); }
  ThreadState& thread() const {
    if (thread_state.generation != generation) {
      thread_state = {};
      thread_state.generation = generation;
    }
    return thread_state;
  }
  /// If there is none yet. `by` is who needs it.
  void make_context(int device, const char* by) { contexts.try_emplace(device, by); }
  void violation(const std::string& what) { violations.push_back(what); }
  void violation(Call call, const std::string& what) {
    violation(std::string(name(call)) + ": " + what);
  }

  /// The device that an address belongs to; none: the host.
  [[nodiscard]] const DeviceMemory* memory_of(const void* address) const {
    const auto found = std::find_if(memory.begin(), memory.end(),
                                    [=](const auto& m) { return m.contains(address); });
    return found == memory.end() ? nullptr : &*found;
  }
  DeviceMemory* memory_of(const void* address) {
    return const_cast<DeviceMemory*>(std::as_const(*this).memory_of(address));
  }

  /// None: an invalid handle. `call` is what is said of one that was destroyed.
  std::shared_ptr<Stream> stream_of(cudaStream_t handle, const char* call) {
    if (handle == nullptr || handle == cudaStreamLegacy) {
      return null_streams.at(static_cast<std::size_t>(thread().device));
    }
    const auto found = stream_handles.find(handle);
    if (found != stream_handles.end()) return found->second.stream;
    if (destroyed.contains(handle)) {
      violation(std::string(call) + ": the stream has been destroyed");
    }
    return nullptr;
  }
  /// Whether what is done with the stream would be done to a graph.
  [[nodiscard]] bool is_captured(const Stream& stream) const {
    if (captured.contains(&stream)) return true;
    return is_captured_by_implication(stream);
  }
  [[nodiscard]] bool is_captured_by_implication(const Stream& stream) const {
    return stream.legacy && std::any_of(captured.begin(), captured.end(), [&](const auto& one) {
             return one.first->device == stream.device && one.first->blocking;
           });
  }
  /// The error of a call that a captured stream does not allow.
  std::optional<cudaError_t> refused_by_capture(const Stream& stream, Call call) {
    if (!is_captured(stream)) return std::nullopt;
    violation(call, "the stream is being captured into a graph, which is lost now");
    const bool implied = is_captured_by_implication(stream);
    for (auto& [other, capture] : captured) {
      if (other == &stream || (implied && other->device == stream.device && other->blocking)) {
        capture.lost = true;
      }
    }
    return implied ? cudaErrorStreamCaptureImplicit : cudaErrorStreamCaptureUnsupported;
  }
  /// The error of a call that may not be made while a graph is captured, here or in other threads.
  std::optional<cudaError_t> refused_as_unsafe(Call call) {
    const cudaStreamCaptureMode mode = thread().capture_mode;
    bool refused = false;
    for (auto& [stream, capture] : captured) {
      const bool prohibited =
          capture.by == std::this_thread::get_id()
              ? capture.mode != cudaStreamCaptureModeRelaxed && mode != cudaStreamCaptureModeRelaxed
              : capture.mode == cudaStreamCaptureModeGlobal && mode == cudaStreamCaptureModeGlobal;
      if (!prohibited) continue;
      capture.lost = true;
      refused = true;
    }
    if (!refused) return std::nullopt;
    violation(call, "a graph is being captured, which is lost now");
    return cudaErrorStreamCaptureUnsupported;
  }
  [[nodiscard]] std::size_t bytes_allocated() const {
    std::size_t bytes = 0;
    for (const auto& [begin, one] : allocated) bytes += one.bytes;
    return bytes;
  }
  Event* event_of(cudaEvent_t handle, Call call) {
    const auto found = events.find(handle);
    if (found != events.end()) return &found->second;
    if (destroyed.contains(handle)) violation(call, "the event has been destroyed");
    return nullptr;
  }

  FakeCuda& owner;
  const std::uint64_t generation = ++generations;
  std::mutex mutex;
  Streams streams;
  std::vector<DeviceMemory> memory;  ///< of each device
  std::vector<std::shared_ptr<Stream>> null_streams;
  std::vector<cudaStream_t> null_handles;  ///< for tests: they need no current device
  HostMemory host;
  std::map<cudaStream_t, StreamHandle> stream_handles;
  std::map<cudaEvent_t, Event> events;
  std::set<const void*> destroyed;             ///< handles
  std::map<const Stream*, Captured> captured;  ///< at the moment
  struct Allocated {
    std::size_t bytes = 0;
    int device = 0;
  };
  std::map<const void*, Allocated> allocated;  ///< by cudaMalloc
  std::size_t most_allocated = static_cast<std::size_t>(-1);
  std::map<int, std::string> contexts;
  struct Failure {
    unsigned after = 0;  ///< calls that succeed before it
    cudaError_t error = cudaSuccess;
  };
  std::map<Call, Failure> failures;
  std::chrono::nanoseconds registering_takes{0};
  std::size_t largest_registration = static_cast<std::size_t>(-1);
  CudaCounters counters;
  std::vector<std::string> violations;
};

namespace {

using State = FakeCuda::State;

constexpr const char* kTraining = "the training";

/// Whether a call makes a context on the current device.
bool needs_context(Call call) {
  return call != Call::get_device_count && call != Call::get_device && call != Call::set_device;
}

/// Whether a call is refused while a graph is captured, though it has nothing to do with that.
bool is_potentially_unsafe(Call call) {
  switch (call) {
    case Call::stream_create_with_flags:
    case Call::stream_destroy:
    case Call::stream_synchronize:
    case Call::event_create_with_flags:
    case Call::event_destroy:
    case Call::event_synchronize:
    case Call::malloc:
    case Call::free:
    case Call::host_register:
    case Call::host_unregister:
    case Call::host_alloc:
    case Call::free_host:
      return true;
    default:
      return false;
  }
}

/// What a call reports is remembered for cudaGetLastError.
cudaError_t reported(const State& cuda, cudaError_t error) {
  if (error != cudaSuccess) cuda.thread().last = error;
  return error;
}

State& living_state(Call call) {
  State* const cuda = living.load();
  if (cuda == nullptr) give_up(std::string(name(call)) + " was called while there is no FakeCuda");
  return *cuda;
}

/// Counts the call. Returns the error that it is to fail with.
std::optional<cudaError_t> begin_call(State& cuda, Call call) {
  ++cuda.counters.calls[static_cast<std::size_t>(call)];
  ++cuda.thread().calls;
  if (fake_cuda::doing_stream_work()) {
    cuda.violation(call, "called from the work of a stream");
    return cudaErrorNotPermitted;
  }
  const auto failure = cuda.failures.find(call);
  if (failure == cuda.failures.end() || failure->second.after-- > 0) return std::nullopt;
  const cudaError_t error = failure->second.error;
  cuda.failures.erase(failure);
  return error;
}

std::optional<cudaError_t> refused_as_unsafe(State& cuda, Call call) {
  return is_potentially_unsafe(call) ? cuda.refused_as_unsafe(call) : std::nullopt;
}

/// A call: `body` returns its error.
template <class Body>
cudaError_t called(Call call, Body&& body) {
  const NotFailing memory;
  State& cuda = living_state(call);
  Lock lock(cuda.mutex);
  if (const auto error = begin_call(cuda, call)) return reported(cuda, *error);
  if (cuda.devices() == 0) return reported(cuda, cudaErrorNoDevice);
  if (const auto error = refused_as_unsafe(cuda, call)) return reported(cuda, *error);
  if (needs_context(call)) cuda.make_context(cuda.thread().device, name(call));
  return reported(cuda, body(cuda, lock));
}

/// One that gives something back, whatever it reports, unless it is not permitted.
template <class Body>
cudaError_t called_to_give_back(Call call, Body&& body) {
  const NotFailing memory;
  State& cuda = living_state(call);
  Lock lock(cuda.mutex);
  const auto error = begin_call(cuda, call);
  if (error == cudaErrorNotPermitted) return reported(cuda, *error);
  if (cuda.devices() == 0) return reported(cuda, cudaErrorNoDevice);
  if (const auto refused = refused_as_unsafe(cuda, call)) return reported(cuda, *refused);
  cuda.make_context(cuda.thread().device, name(call));
  const cudaError_t result = body(cuda, lock);
  return reported(cuda, error.value_or(result));
}

bool only_has(unsigned flags, unsigned known) { return (flags & ~known) == 0; }

// --- Copies

/// One side of a copy.
struct Side {
  std::byte* bytes = nullptr;  ///< where the stand-in reaches it
  std::shared_ptr<fake_cuda::Resource> resource;
  bool on_device = false;
  bool pageable = false;
};

cudaError_t find_side(State& cuda, const char* call, const void* address, std::size_t bytes,
                      const Stream& stream, Side& side) {
  if (const DeviceMemory* const memory = cuda.memory_of(address)) {
    const DeviceMemory::Found found = memory->find(address, bytes);
    if (found.allocation == nullptr) {
      cuda.violation(std::string(call) + ": an address " + found.problem);
      return cudaErrorInvalidValue;
    }
    side = {found.allocation->bytes_at(address), found.allocation, true, false};
    return cudaSuccess;
  }
  if (address == nullptr) return cudaErrorInvalidValue;
  const HostMemory::Found found = cuda.host.find(address, bytes);
  if (found.straddles) {
    ++cuda.counters.straddling_copies;
    return cudaErrorInvalidValue;
  }
  const bool pinned =
      found.pinned != nullptr && (found.pinned->portable || found.pinned->device == stream.device);
  side = {static_cast<std::byte*>(const_cast<void*>(address)), found.pinned, false, !pinned};
  return cudaSuccess;
}

cudaMemcpyKind kind_of(const Side& to, const Side& from) {
  if (from.on_device) return to.on_device ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost;
  return to.on_device ? cudaMemcpyHostToDevice : cudaMemcpyHostToHost;
}

/// Copies that are enqueued together.
struct Transfer {
  Work work;
  bool synchronous = false;
  CudaCounters counted;

  cudaError_t add(State& cuda, const char* call, void* to, const void* from, std::size_t bytes,
                  cudaMemcpyKind kind, const Stream& stream) {
    Side target;
    Side source;
    cudaError_t error = find_side(cuda, call, to, bytes, stream, target);
    if (error == cudaSuccess) error = find_side(cuda, call, from, bytes, stream, source);
    if (error != cudaSuccess) return error;
    const cudaMemcpyKind found = kind_of(target, source);
    if (kind != cudaMemcpyDefault && kind != found) {
      cuda.violation(std::string(call) + ": the direction is not that of the pointers");
      return cudaErrorInvalidMemcpyDirection;
    }
    if (target.bytes < source.bytes + bytes && source.bytes < target.bytes + bytes) {
      cuda.violation(std::string(call) + ": both sides overlap");
      return cudaErrorInvalidValue;
    }
    ++counted.copies;
    if (found == cudaMemcpyHostToDevice) counted.bytes_to_device += bytes;
    if (found == cudaMemcpyDeviceToHost) counted.bytes_to_host += bytes;
    if (found == cudaMemcpyDeviceToDevice) counted.bytes_between_devices += bytes;
    if (target.pageable || source.pageable || found == cudaMemcpyHostToHost) {
      synchronous = true;
      ++counted.pageable_copies;
    }
    work.copies.push_back({target.bytes, source.bytes, bytes});
    for (auto& resource : {target.resource, source.resource}) {
      if (resource != nullptr) work.uses.push_back(resource);
    }
    return cudaSuccess;
  }
};

/// Enqueues it. Waits if it is synchronous: then a fault is reported at once.
cudaError_t start(State& cuda, Lock& lock, const std::shared_ptr<Stream>& stream,
                  Transfer transfer) {
  if (transfer.work.copies.empty()) return cudaSuccess;
  const Point end = cuda.streams.enqueue(stream, std::move(transfer.work));
  if (!transfer.synchronous) return cudaSuccess;
  cuda.streams.wait(lock, end);
  return cuda.streams.broken(stream->device);
}

void count(State& cuda, const Transfer& transfer, const Stream& stream) {
  CudaCounters& all = cuda.counters;
  const CudaCounters& these = transfer.counted;
  all.copies += these.copies;
  all.batched_copies += these.batched_copies;
  all.bytes_to_host += these.bytes_to_host;
  all.bytes_to_device += these.bytes_to_device;
  all.bytes_between_devices += these.bytes_between_devices;
  all.pageable_copies += these.pageable_copies;
  if (stream.legacy) ++all.device_synchronisations;
  if (cuda.thread().device != stream.device) all.copies_elsewhere += these.copies;
}

/// Which of the batch's attributes belongs to each copy; none if they are not as they have to be.
std::vector<const cudaMemcpyAttributes*> attributes_of_copies(
    std::size_t count, std::span<const cudaMemcpyAttributes> attributes,
    std::span<const std::size_t> first_copies) {
  std::vector<const cudaMemcpyAttributes*> of_copy(count);
  for (std::size_t i = 0; i < attributes.size(); ++i) {
    const std::size_t begin = first_copies[i];
    const std::size_t end = i + 1 < attributes.size() ? first_copies[i + 1] : count;
    const auto order = attributes[i].srcAccessOrder;
    const bool known = order == cudaMemcpySrcAccessOrderStream ||
                       order == cudaMemcpySrcAccessOrderDuringApiCall ||
                       order == cudaMemcpySrcAccessOrderAny;
    if ((i == 0 && begin != 0) || begin >= end || end > count || !known) return {};
    std::fill(of_copy.begin() + static_cast<std::ptrdiff_t>(begin),
              of_copy.begin() + static_cast<std::ptrdiff_t>(end), &attributes[i]);
  }
  return of_copy;
}

/// Reads the sources of these copies now, whatever their stream has to do before.
void read_out_of_order(State& cuda, Lock& lock, const Stream& stream, Transfer& transfer,
                       const std::vector<std::size_t>& which) {
  if (which.empty()) return;
  const auto aside = cuda.streams.create(stream.device, false);
  Work reading;
  for (const std::size_t i : which) {
    fake_cuda::Copy& copy = transfer.work.copies[i];
    const auto bytes = std::make_shared<std::vector<std::byte>>(copy.bytes);
    reading.copies.push_back({bytes->data(), copy.from, copy.bytes});
    copy.from = bytes->data();
    transfer.work.keeps.push_back(bytes);
  }
  cuda.streams.wait(lock, cuda.streams.enqueue(aside, std::move(reading)));
  cuda.streams.retire(*aside);
}

// --- The functions of the table

cudaError_t get_device_count(int* number) {
  return called(Call::get_device_count, [&](State& cuda, Lock&) {
    if (number == nullptr) return cudaErrorInvalidValue;
    *number = cuda.devices();
    return cudaSuccess;
  });
}

cudaError_t get_device(int* device) {
  return called(Call::get_device, [&](State& cuda, Lock&) {
    if (device == nullptr) return cudaErrorInvalidValue;
    *device = cuda.thread().device;
    return cudaSuccess;
  });
}

cudaError_t set_device(int device) {
  return called(Call::set_device, [&](State& cuda, Lock&) {
    if (device < 0 || device >= cuda.devices()) return cudaErrorInvalidDevice;
    if (const cudaError_t error = cuda.streams.broken(device); error != cudaSuccess) return error;
    cuda.make_context(device, name(Call::set_device));
    cuda.thread().device = device;
    return cudaSuccess;
  });
}

cudaError_t stream_create_with_flags(cudaStream_t* stream, unsigned flags) {
  return called(Call::stream_create_with_flags, [&](State& cuda, Lock&) {
    const int device = cuda.thread().device;
    if (const cudaError_t error = cuda.streams.broken(device); error != cudaSuccess) return error;
    if (stream == nullptr || !only_has(flags, cudaStreamNonBlocking)) return cudaErrorInvalidValue;
    *stream = new_handle<cudaStream_t>();
    cuda.stream_handles[*stream].stream =
        cuda.streams.create(device, (flags & cudaStreamNonBlocking) == 0);
    return cudaSuccess;
  });
}

cudaError_t stream_destroy(cudaStream_t handle) {
  return called_to_give_back(Call::stream_destroy, [&](State& cuda, Lock&) {
    if (handle == nullptr || handle == cudaStreamLegacy) return cudaErrorInvalidResourceHandle;
    const auto stream = cuda.stream_of(handle, name(Call::stream_destroy));
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (cuda.stream_handles.at(handle).of_training) {
      cuda.violation(Call::stream_destroy, "this is the training's stream");
      return cudaErrorInvalidResourceHandle;
    }
    cuda.streams.retire(*stream);
    cuda.stream_handles.erase(handle);
    cuda.destroyed.insert(handle);
    return cuda.streams.broken(stream->device);
  });
}

cudaError_t stream_synchronize(cudaStream_t handle) {
  return called(Call::stream_synchronize, [&](State& cuda, Lock& lock) {
    const auto stream = cuda.stream_of(handle, name(Call::stream_synchronize));
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (const auto refused = cuda.refused_by_capture(*stream, Call::stream_synchronize)) {
      return *refused;
    }
    if (stream->legacy) ++cuda.counters.device_synchronisations;
    cuda.streams.wait(lock, cuda.streams.tail(stream));
    return cuda.streams.broken(stream->device);
  });
}

cudaError_t stream_wait_event(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  return called(Call::stream_wait_event, [&](State& cuda, Lock&) {
    const auto stream = cuda.stream_of(handle, name(Call::stream_wait_event));
    const Event* const found = cuda.event_of(event, Call::stream_wait_event);
    if (stream == nullptr || found == nullptr) return cudaErrorInvalidResourceHandle;
    if (flags != cudaEventWaitDefault) return cudaErrorInvalidValue;
    if (const auto refused = cuda.refused_by_capture(*stream, Call::stream_wait_event)) {
      return *refused;
    }
    for (const int device : {stream->device, found->device}) {
      if (const cudaError_t error = cuda.streams.broken(device); error != cudaSuccess) return error;
    }
    Work wait;
    wait.after.push_back(found->point);
    cuda.streams.enqueue(stream, std::move(wait));
    return cudaSuccess;
  });
}

cudaError_t stream_is_capturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return called(Call::stream_is_capturing, [&](State& cuda, Lock&) {
    const auto stream = cuda.stream_of(handle, name(Call::stream_is_capturing));
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (status == nullptr) return cudaErrorInvalidValue;
    if (cuda.is_captured_by_implication(*stream)) return cudaErrorStreamCaptureImplicit;
    const auto found = cuda.captured.find(stream.get());
    *status = found == cuda.captured.end() ? cudaStreamCaptureStatusNone
              : found->second.lost         ? cudaStreamCaptureStatusInvalidated
                                           : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t thread_exchange_stream_capture_mode(cudaStreamCaptureMode* mode) {
  return called(Call::thread_exchange_stream_capture_mode, [&](State& cuda, Lock&) {
    if (mode == nullptr || *mode < cudaStreamCaptureModeGlobal ||
        *mode > cudaStreamCaptureModeRelaxed) {
      return cudaErrorInvalidValue;
    }
    std::swap(*mode, cuda.thread().capture_mode);
    return cudaSuccess;
  });
}

cudaError_t event_create_with_flags(cudaEvent_t* event, unsigned flags) {
  return called(Call::event_create_with_flags, [&](State& cuda, Lock&) {
    const int device = cuda.thread().device;
    if (const cudaError_t error = cuda.streams.broken(device); error != cudaSuccess) return error;
    constexpr unsigned kKnown =
        cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;
    if (event == nullptr || !only_has(flags, kKnown)) return cudaErrorInvalidValue;
    if ((flags & cudaEventInterprocess) != 0 && (flags & cudaEventDisableTiming) == 0) {
      return cudaErrorInvalidValue;
    }
    *event = new_handle<cudaEvent_t>();
    cuda.events[*event] = {device, (flags & cudaEventBlockingSync) != 0, {}};
    return cudaSuccess;
  });
}

cudaError_t event_destroy(cudaEvent_t event) {
  return called_to_give_back(Call::event_destroy, [&](State& cuda, Lock&) {
    const Event* const found = cuda.event_of(event, Call::event_destroy);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    const int device = found->device;
    cuda.events.erase(event);
    cuda.destroyed.insert(event);
    return cuda.streams.broken(device);
  });
}

cudaError_t event_record(cudaEvent_t event, cudaStream_t handle) {
  return called(Call::event_record, [&](State& cuda, Lock&) {
    const auto stream = cuda.stream_of(handle, name(Call::event_record));
    Event* const found = cuda.event_of(event, Call::event_record);
    if (stream == nullptr || found == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->device != found->device) return cudaErrorInvalidResourceHandle;
    if (const auto refused = cuda.refused_by_capture(*stream, Call::event_record)) return *refused;
    if (const cudaError_t error = cuda.streams.broken(stream->device); error != cudaSuccess) {
      return error;
    }
    found->point = cuda.streams.tail(stream);
    return cudaSuccess;
  });
}

cudaError_t event_synchronize(cudaEvent_t event) {
  return called(Call::event_synchronize, [&](State& cuda, Lock& lock) {
    const Event* const found = cuda.event_of(event, Call::event_synchronize);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    if (!found->blocking) ++cuda.counters.busy_waits;
    const int device = found->device;
    const Point point = found->point;
    cuda.streams.wait(lock, point);
    return cuda.streams.broken(device);
  });
}

cudaError_t memcpy_async(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                         cudaStream_t handle) {
  return called(Call::memcpy_async, [&](State& cuda, Lock& lock) {
    const auto stream = cuda.stream_of(handle, name(Call::memcpy_async));
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = cuda.streams.broken(stream->device); error != cudaSuccess) {
      return error;
    }
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) {
      return cudaErrorInvalidMemcpyDirection;
    }
    if (bytes == 0) return cudaSuccess;
    Transfer transfer;
    const cudaError_t error =
        transfer.add(cuda, name(Call::memcpy_async), to, from, bytes, kind, *stream);
    if (error != cudaSuccess) return error;
    transfer.work.may_be_broken = true;
    count(cuda, transfer, *stream);
    return start(cuda, lock, stream, std::move(transfer));
  });
}

cudaError_t memcpy_batch_async(void* const* to, const void* const* from, const std::size_t* sizes,
                               std::size_t number, cudaMemcpyAttributes* attributes,
                               std::size_t* first_copies, std::size_t attribute_count,
                               cudaStream_t handle) {
  return called(Call::memcpy_batch_async, [&](State& cuda, Lock& lock) {
    const auto stream = cuda.stream_of(handle, name(Call::memcpy_batch_async));
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->legacy) return cudaErrorInvalidValue;
    if (const cudaError_t error = cuda.streams.broken(stream->device); error != cudaSuccess) {
      return error;
    }
    if (to == nullptr || from == nullptr || sizes == nullptr || attributes == nullptr ||
        first_copies == nullptr || number == 0 || attribute_count == 0 ||
        attribute_count > number) {
      return cudaErrorInvalidValue;
    }
    const auto of_copy = attributes_of_copies(number, {attributes, attribute_count},
                                              {first_copies, attribute_count});
    if (of_copy.empty()) return cudaErrorInvalidValue;
    Transfer transfer;
    std::vector<std::size_t> out_of_order;
    for (std::size_t i = 0; i < number; ++i) {
      if (sizes[i] == 0) return cudaErrorInvalidValue;
      const cudaError_t error = transfer.add(cuda, name(Call::memcpy_batch_async), to[i], from[i],
                                             sizes[i], cudaMemcpyDefault, *stream);
      if (error != cudaSuccess) return error;
      if (of_copy[i]->srcAccessOrder != cudaMemcpySrcAccessOrderStream) out_of_order.push_back(i);
    }
    transfer.work.may_be_broken = true;
    transfer.counted.batched_copies = number;
    count(cuda, transfer, *stream);
    read_out_of_order(cuda, lock, *stream, transfer, out_of_order);
    return start(cuda, lock, stream, std::move(transfer));
  });
}

cudaError_t malloc_on_device(void** begin, std::size_t bytes) {
  return called(Call::malloc, [&](State& cuda, Lock&) {
    const int device = cuda.thread().device;
    if (const cudaError_t error = cuda.streams.broken(device); error != cudaSuccess) return error;
    if (begin == nullptr) return cudaErrorInvalidValue;
    *begin = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (cuda.bytes_allocated() + bytes > cuda.most_allocated) return cudaErrorMemoryAllocation;
    *begin = cuda.memory.at(static_cast<std::size_t>(device)).allocate(bytes)->begin;
    cuda.allocated[*begin] = {bytes, device};
    return cudaSuccess;
  });
}

cudaError_t free_on_device(void* begin) {
  return called_to_give_back(Call::free, [&](State& cuda, Lock& lock) {
    if (begin == nullptr) return cudaSuccess;
    const auto found = cuda.allocated.find(begin);
    if (found == cuda.allocated.end()) return cudaErrorInvalidValue;
    const int device = found->second.device;
    cuda.allocated.erase(found);
    ++cuda.counters.device_synchronisations;
    const auto freed = cuda.memory.at(static_cast<std::size_t>(device)).free(begin);
    if (freed->pending > 0) {
      cuda.violation(Call::free, "pending work uses the memory");
      cuda.streams.abandon(lock, *freed);
    }
    return cuda.streams.broken(device);
  });
}

cudaError_t host_register(void* begin, std::size_t bytes, unsigned flags) {
  return called(Call::host_register, [&](State& cuda, Lock&) {
    ++cuda.counters.device_synchronisations;
    const int device = cuda.thread().device;
    if (const cudaError_t error = cuda.streams.broken(device); error != cudaSuccess) return error;
    constexpr unsigned kSpecial = cudaHostRegisterIoMemory | cudaHostRegisterReadOnly;
    if (begin == nullptr || bytes == 0 || cuda.memory_of(begin) != nullptr ||
        !only_has(flags, cudaHostRegisterPortable | cudaHostRegisterMapped | kSpecial)) {
      return cudaErrorInvalidValue;
    }
    if ((flags & kSpecial) != 0) return cudaErrorNotSupported;
    if (!fake_cuda::is_mapped(begin, bytes)) return cudaErrorInvalidValue;
    if (bytes > cuda.largest_registration) return cudaErrorMemoryAllocation;
    if (!fake_cuda::is_populated(begin, bytes)) ++cuda.counters.unpopulated_registrations;
    std::this_thread::sleep_for(cuda.registering_takes);
    const cudaError_t error =
        cuda.host.add(begin, bytes, device, (flags & cudaHostRegisterPortable) != 0);
    if (error == cudaSuccess) {
      ++cuda.counters.registrations;
      cuda.counters.registered_bytes += bytes;
    }
    return error;
  });
}

cudaError_t unpin(State& cuda, Lock& lock, Call call, const void* begin) {
  ++cuda.counters.device_synchronisations;
  const bool allocated = call == Call::free_host;
  const auto range = cuda.host.remove(begin, allocated);
  if (range == nullptr) {
    return allocated ? cudaErrorInvalidValue : cudaErrorHostMemoryNotRegistered;
  }
  if (range->pending > 0) {
    cuda.violation(call, "pending work uses the memory");
    cuda.streams.abandon(lock, *range);
  }
  if (!fake_cuda::is_mapped(range->begin, range->bytes)) {
    cuda.violation(call, "the memory was unmapped before");
  }
  return cuda.streams.broken(range->device);
}

cudaError_t host_unregister(void* begin) {
  return called_to_give_back(Call::host_unregister, [&](State& cuda, Lock& lock) {
    return unpin(cuda, lock, Call::host_unregister, begin);
  });
}

cudaError_t host_alloc(void** begin, std::size_t bytes, unsigned flags) {
  return called(Call::host_alloc, [&](State& cuda, Lock&) {
    ++cuda.counters.device_synchronisations;
    const int device = cuda.thread().device;
    if (const cudaError_t error = cuda.streams.broken(device); error != cudaSuccess) return error;
    constexpr unsigned kKnown =
        cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
    if (begin == nullptr || !only_has(flags, kKnown)) return cudaErrorInvalidValue;
    if (bytes == 0) {
      *begin = nullptr;
      return cudaSuccess;
    }
    return cuda.host.allocate(begin, bytes, device, (flags & cudaHostAllocPortable) != 0);
  });
}

cudaError_t free_host(void* begin) {
  return called_to_give_back(Call::free_host, [&](State& cuda, Lock& lock) {
    if (begin == nullptr) return cudaSuccess;
    return unpin(cuda, lock, Call::free_host, begin);
  });
}

cudaError_t get_last_error() {
  State& cuda = living_state(Call::get_last_error);
  const Lock lock(cuda.mutex);
  if (const auto error = begin_call(cuda, Call::get_last_error)) return *error;
  ThreadState& thread = cuda.thread();
  const cudaError_t error = std::exchange(thread.last, cudaSuccess);
  const cudaError_t lasting = cuda.streams.broken(thread.device);
  return lasting != cudaSuccess ? lasting : error;
}

/// They need no device, and so none of ours.
const char* words(Call call, const char* (*of)(cudaError_t), cudaError_t error) {
  if (State* const cuda = living.load()) {
    const Lock lock(cuda->mutex);
    if (begin_call(*cuda, call)) return of(cudaErrorApiFailureBase);
  }
  return of(error);
}

const char* get_error_name(cudaError_t error) {
  return words(Call::get_error_name, fake_cuda::error_name, error);
}

const char* get_error_string(cudaError_t error) {
  return words(Call::get_error_string, fake_cuda::error_string, error);
}

/// Of a kernel that runs.
class Access final : public DeviceMemoryAccess {
 public:
  Access(State& cuda, std::vector<std::shared_ptr<Allocation>> named)
      : cuda_(cuda), named_(std::move(named)) {}

  std::span<std::byte> at(const void* address, std::size_t bytes) override {
    for (const auto& allocation : named_) {
      if (allocation->holds(address, bytes)) return {allocation->bytes_at(address), bytes};
    }
    const Lock lock(cuda_.mutex);
    const DeviceMemory* const memory = cuda_.memory_of(address);
    DeviceMemory::Found found;
    if (memory == nullptr) {
      found.problem = "is not in device memory";
    } else {
      found = memory->find(address, bytes);
    }
    if (found.allocation != nullptr) {
      reached_.push_back(found.allocation);
      return {found.allocation->bytes_at(address), bytes};
    }
    cuda_.violation("a kernel: an address " + found.problem);
    return nowhere_.emplace_back(bytes);
  }

 private:
  State& cuda_;
  std::vector<std::shared_ptr<Allocation>> named_;
  std::vector<std::shared_ptr<Allocation>> reached_;  ///< so that they last as long as the kernel
  std::deque<std::vector<std::byte>> nowhere_;
};

}  // namespace

FakeCuda::FakeCuda(int devices, Schedule schedule)
    : state_(std::make_unique<State>(*this, devices, schedule)) {
  if (living.exchange(state_.get()) != nullptr) give_up("there are two FakeCuda at once");
}

FakeCuda::~FakeCuda() {
  {
    Lock lock(state_->mutex);
    if (state_->streams.waiting() > 0) give_up("a thread still waits when FakeCuda ends");
    state_->streams.wait_for_everything(lock);
  }
  living.store(nullptr);
}

const stage::CudaRuntime& FakeCuda::runtime() {
  static const stage::CudaRuntime table = [] {
    stage::CudaRuntime filled;
    filled.get_device_count = get_device_count;
    filled.get_device = get_device;
    filled.set_device = set_device;
    filled.stream_create_with_flags = stream_create_with_flags;
    filled.stream_destroy = stream_destroy;
    filled.stream_synchronize = stream_synchronize;
    filled.stream_wait_event = stream_wait_event;
    filled.stream_is_capturing = stream_is_capturing;
    filled.thread_exchange_stream_capture_mode = thread_exchange_stream_capture_mode;
    filled.event_create_with_flags = event_create_with_flags;
    filled.event_destroy = event_destroy;
    filled.event_record = event_record;
    filled.event_synchronize = event_synchronize;
    filled.memcpy_async = memcpy_async;
    filled.memcpy_batch_async = memcpy_batch_async;
    filled.malloc = malloc_on_device;
    filled.free = free_on_device;
    filled.host_register = host_register;
    filled.host_unregister = host_unregister;
    filled.host_alloc = host_alloc;
    filled.free_host = free_host;
    filled.get_last_error = get_last_error;
    filled.get_error_name = get_error_name;
    filled.get_error_string = get_error_string;
    filled.has_context = [](int device) {
      const FakeCuda* const cuda = FakeCuda::current();
      return cuda != nullptr && cuda->contexts().contains(device);
    };
    return filled;
  }();
  return table;
}

FakeCuda* FakeCuda::current() {
  State* const cuda = living.load();
  return cuda == nullptr ? nullptr : &cuda->owner;
}

std::uint64_t FakeCuda::id() const { return state_->generation; }

int FakeCuda::devices() const { return state_->devices(); }

void* FakeCuda::device_alloc(int device, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const Lock lock(state_->mutex);
  state_->make_context(device, kTraining);
  return state_->memory.at(static_cast<std::size_t>(device)).allocate(bytes)->begin;
}

void* FakeCuda::device_alloc_repeated(int device, std::size_t bytes, std::size_t period) {
  const Lock lock(state_->mutex);
  return state_->memory.at(static_cast<std::size_t>(device))
      .allocate_repeated(bytes, period)
      ->begin;
}

void FakeCuda::device_free(void* memory) { device_free(memory, {}); }

void FakeCuda::device_free(void* memory, std::span<const cudaStream_t> streams) {
  if (memory == nullptr) return;
  const Lock lock(state_->mutex);
  DeviceMemory* const device = state_->memory_of(memory);
  const auto freed = device == nullptr ? nullptr : device->free(memory);
  if (freed == nullptr) {
    state_->violation("device_free: this is not the begin of allocated device memory");
    return;
  }
  std::vector<Point> points;
  for (auto* const handle : streams) {
    const auto stream = state_->stream_of(handle, "device_free");
    if (stream != nullptr) points.push_back(state_->streams.tail(stream));
  }
  if (!state_->streams.uses_end_before(*freed, points)) {
    state_->violation("device_free: pending work uses the memory");
  }
}

bool FakeCuda::is_device_memory(const void* address) const {
  return state_->memory_of(address) != nullptr;
}

bool FakeCuda::is_pinned(const void* address) const {
  const Lock lock(state_->mutex);
  return state_->host.find(address, 1).pinned != nullptr;
}

int FakeCuda::current_device() const { return state_->thread().device; }

void FakeCuda::set_current_device(int device) {
  if (device < 0 || device >= devices()) throw std::out_of_range("no such device");
  const Lock lock(state_->mutex);
  state_->make_context(device, kTraining);
  state_->thread().device = device;
}

std::map<int, std::string> FakeCuda::contexts() const {
  const Lock lock(state_->mutex);
  return state_->contexts;
}

cudaStream_t FakeCuda::training_stream(int device, unsigned flags) {
  const Lock lock(state_->mutex);
  state_->make_context(device, kTraining);
  const auto handle = new_handle<cudaStream_t>();
  state_->stream_handles[handle] = {
      state_->streams.create(device, (flags & cudaStreamNonBlocking) == 0), true};
  return handle;
}

cudaStream_t FakeCuda::null_stream(int device) const {
  return state_->null_handles.at(static_cast<std::size_t>(device));
}

namespace {

std::shared_ptr<Stream> existing_stream(State& cuda, cudaStream_t handle) {
  auto stream = cuda.stream_of(handle, "the test");
  if (stream == nullptr) throw std::invalid_argument("no such stream");
  cuda.make_context(stream->device, kTraining);
  return stream;
}

}  // namespace

void FakeCuda::wait_for(cudaStream_t stream, cudaStream_t other) {
  const Lock lock(state_->mutex);
  Work wait;
  wait.after.push_back(state_->streams.tail(existing_stream(*state_, other)));
  state_->streams.enqueue(existing_stream(*state_, stream), std::move(wait));
}

void FakeCuda::launch(cudaStream_t stream, Kernel kernel, std::span<const Range> uses) {
  const Lock lock(state_->mutex);
  Work work;
  std::vector<std::shared_ptr<Allocation>> named;
  for (const Range& range : uses) {
    const DeviceMemory* const memory = state_->memory_of(range.begin);
    DeviceMemory::Found found;
    if (memory != nullptr) found = memory->find(range.begin, range.bytes);
    if (found.allocation == nullptr) {
      state_->violation("launch: an address " + found.problem);
      return;
    }
    work.uses.push_back(found.allocation);
    named.push_back(found.allocation);
  }
  work.kernel = [state = state_.get(), run = std::move(kernel), named = std::move(named)] {
    Access access(*state, named);
    run(access);
  };
  ++state_->counters.launches;
  state_->streams.enqueue(existing_stream(*state_, stream), std::move(work));
}

void FakeCuda::launch_fill(cudaStream_t stream, void* memory, std::size_t bytes, std::byte value) {
  launch(stream,
         [=](DeviceMemoryAccess& access) {
           const auto filled = access.at(memory, bytes);
           std::fill(filled.begin(), filled.end(), value);
         },
         {{memory, bytes}});
}

void FakeCuda::copy(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
  Lock lock(state_->mutex);
  const auto in = existing_stream(*state_, stream);
  Transfer transfer;
  cudaError_t error = bytes == 0 ? cudaSuccess
                                 : transfer.add(*state_, "the test's copy", to, from, bytes,
                                                cudaMemcpyDefault, *in);
  if (error == cudaSuccess) error = start(*state_, lock, in, std::move(transfer));
  if (error != cudaSuccess) throw std::runtime_error(fake_cuda::error_string(error));
}

void FakeCuda::begin_graph_capture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock lock(state_->mutex);
  state_->captured[existing_stream(*state_, stream).get()] = {std::this_thread::get_id(), mode};
}

bool FakeCuda::end_graph_capture(cudaStream_t stream) {
  const Lock lock(state_->mutex);
  const auto found = state_->captured.find(existing_stream(*state_, stream).get());
  if (found == state_->captured.end()) throw std::invalid_argument("the stream is not captured");
  const bool whole = !found->second.lost;
  state_->captured.erase(found);
  return whole;
}

void FakeCuda::synchronise(cudaStream_t stream) {
  Lock lock(state_->mutex);
  state_->streams.wait(lock, state_->streams.tail(existing_stream(*state_, stream)));
}

bool FakeCuda::idle(cudaStream_t stream) const {
  const Lock lock(state_->mutex);
  return existing_stream(*state_, stream)->work.empty();
}

FakeCuda::Hold FakeCuda::hold(cudaStream_t stream) {
  const Lock lock(state_->mutex);
  auto held = std::make_shared<bool>(true);
  Work work;
  work.held = held;
  state_->streams.enqueue(existing_stream(*state_, stream), std::move(work));
  return {*this, std::move(held)};
}

void FakeCuda::Hold::release() {
  if (held_ == nullptr) return;
  const Lock lock(cuda_->state_->mutex);
  cuda_->state_->streams.release(*held_);
  held_ = nullptr;
}

namespace {

std::byte* bytes_of(const State& cuda, const void* memory, std::size_t bytes) {
  const DeviceMemory* const device = cuda.memory_of(memory);
  const auto found = device == nullptr ? DeviceMemory::Found() : device->find(memory, bytes);
  if (found.allocation == nullptr) throw std::out_of_range("no such device memory");
  return found.allocation->bytes_at(memory);
}

}  // namespace

void FakeCuda::write(void* memory, std::span<const std::byte> bytes) {
  const Lock lock(state_->mutex);
  std::memcpy(bytes_of(*state_, memory, bytes.size()), bytes.data(), bytes.size());
}

std::vector<std::byte> FakeCuda::read(const void* memory, std::size_t bytes) const {
  const Lock lock(state_->mutex);
  const std::byte* const from = bytes_of(*state_, memory, bytes);
  return {from, from + bytes};
}

void FakeCuda::fail(Call call, unsigned nth, cudaError_t error) {
  const Lock lock(state_->mutex);
  state_->failures[call] = {nth - 1, error};
}

void FakeCuda::fault_copy(unsigned nth, cudaError_t error) {
  const Lock lock(state_->mutex);
  state_->streams.break_at_copy(nth, error);
}

void FakeCuda::fault_device(int device, cudaError_t error) {
  Lock lock(state_->mutex);
  state_->streams.break_device(lock, device, error);
}

void FakeCuda::let_registering_take(std::chrono::nanoseconds time) {
  const Lock lock(state_->mutex);
  state_->registering_takes = time;
}

void FakeCuda::limit_pinned_bytes(std::size_t bytes) {
  const Lock lock(state_->mutex);
  state_->host.limit(bytes);
}

void FakeCuda::limit_registration(std::size_t bytes) {
  const Lock lock(state_->mutex);
  state_->largest_registration = bytes;
}

CudaCounters FakeCuda::counters() const {
  const Lock lock(state_->mutex);
  return state_->counters;
}

std::uint64_t FakeCuda::calls_of_this_thread() const { return state_->thread().calls; }

void FakeCuda::reset_counters() {
  const Lock lock(state_->mutex);
  state_->counters = {};
}

std::size_t FakeCuda::pinned_bytes() const {
  const Lock lock(state_->mutex);
  return state_->host.bytes();
}

std::size_t FakeCuda::allocated_bytes() const {
  const Lock lock(state_->mutex);
  return state_->bytes_allocated();
}

void FakeCuda::limit_allocated_bytes(std::size_t bytes) {
  const Lock lock(state_->mutex);
  state_->most_allocated = bytes;
}

std::vector<std::string> FakeCuda::finish() {
  Lock lock(state_->mutex);
  State& cuda = *state_;
  if (cuda.streams.wait_for_everything(lock) > 0) cuda.violation("a stream is still held");
  const auto works = [&](int device) { return cuda.streams.broken(device) == cudaSuccess; };
  for (const auto& [handle, entry] : cuda.stream_handles) {
    if (!entry.of_training && works(entry.stream->device)) {
      cuda.violation("a stream was not destroyed");
    }
  }
  for (const auto& [handle, event] : cuda.events) {
    if (works(event.device)) cuda.violation("an event was not destroyed");
  }
  for (const auto& [begin, one] : cuda.allocated) {
    if (works(one.device)) cuda.violation("memory of cudaMalloc was not freed");
  }
  for (const auto& [begin, range] : cuda.host.all()) {
    if (!works(range->device)) continue;
    cuda.violation(range->allocated != nullptr ? "memory of cudaHostAlloc was not freed"
                                               : "registered memory was not unregistered");
  }
  return std::exchange(cuda.violations, {});
}

std::vector<std::string> FakeCuda::take_violations() {
  const Lock lock(state_->mutex);
  return std::exchange(state_->violations, {});
}

}  // namespace ckptring::test
