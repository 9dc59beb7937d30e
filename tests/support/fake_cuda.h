// A stand-in for the CUDA runtime and its devices, for tests where there is none: the table that
// the code under test calls, device memory, streams that run truly asynchronously, and what a test
// needs to steer and to look. It is strict: what CUDA leaves open happens in the worst way, and
// what CUDA leaves undefined is a violation, which the test reads at the end.
//
// Modelled after the reference of the runtime (the comments in cuda_runtime_api.h), its chapter on
// synchronisation, and the programming guide's chapters on streams, events and several devices:
//
// Devices and threads
//  - Each host thread has a current device, at first 0. Streams and events belong to the device
//    that was current when they were made; a NULL stream is that of the current device.
//  - An event is recorded only in a stream of its own device. A stream may wait for an event of any
//    device, and copies may use a stream of any device, whatever is current.
//  - A device has a primary context once somebody has used it: the training, cudaSetDevice, or a
//    call that works in the context of the thread's current device, whichever device its stream or
//    event is of. The reference says no more of these than that they make one where they need one;
//    here all calls do but those that count devices, tell the current one or tell of errors.
//  - What runs in a stream may not call the runtime: cudaErrorNotPermitted, and a violation.
//
// Streams and events
//  - Work of one stream runs in order. Work of several streams runs in any order that events leave
//    open: see Schedule. Calls return before their work has run.
//  - The NULL stream takes turns with the streams of its device that were not made with
//    cudaStreamNonBlocking, and with no others. The per-thread default stream is not modelled.
//  - A record captures what the stream holds at that moment; a later record replaces it, and leaves
//    alone who waits already. An event that was never recorded holds nothing: nobody waits for it.
//  - A destroyed stream finishes its work. A destroyed event changes nothing for who waits. Using
//    the handle afterwards is undefined, and here a violation.
//  - cudaEventSynchronize keeps a processor busy unless the event has cudaEventBlockingSync; such
//    calls are counted apart.
//
// Memory
//  - Device memory is no host memory: the host that touches it ends the process with a message.
//    Addresses are given out once. Work that names freed memory, or reaches past the end, is an
//    error and a violation; so is to free memory that pending work uses.
//  - Host memory is pinned by cudaHostRegister or cudaHostAlloc. Pages are locked as a whole: two
//    ranges that share a page are cudaErrorHostMemoryAlreadyRegistered. Memory that is not portable
//    is pinned for the device that was current only (with unified addressing CUDA would make all
//    memory portable; nobody should rely on it).
//  - A copy between the device and host memory that is not pinned is synchronous: it waits for its
//    stream's earlier work, and returns once it has ended (CUDA "might" return earlier). Copies
//    from host to host are synchronous always.
//  - A copy whose host side is pinned in part, or in two ranges, is cudaErrorInvalidValue: such
//    memory has to be pinned whole, or not at all. Where two ranges meet, the reference says
//    nothing more; here it is an error.
//  - To unpin or to free host memory that pending work uses is a violation, and so is memory that
//    was unmapped while it was registered.
//
//  - What cudaMalloc gave is to be given back, while no pending work uses it.
//
// Graphs
//  - What a stream is given while it is captured becomes part of a graph. To record an event in it,
//    to let it wait for one that was recorded elsewhere, or to wait for it, loses the capture: an
//    error and a violation. The NULL stream may not be used, nor asked about, while a stream of its
//    device that takes turns with it is captured.
//  - A thread that captures prohibits what is potentially unsafe: itself, unless it captures in the
//    mode cudaStreamCaptureModeRelaxed, and all others if it does in cudaStreamCaptureModeGlobal,
//    which it does unless it says otherwise. A thread in the mode cudaStreamCaptureModeThreadLocal
//    minds its own captures only, one in cudaStreamCaptureModeRelaxed none. Whoever calls it all
//    the same gets an error, and each capture that prohibited it is lost: a violation. The
//    reference names cudaMalloc, which is not enqueued in a stream; here all is unsafe that is not,
//    but what chooses a device or tells of devices, captures and errors.
//
// Copies
//  - The direction has to be that of the pointers, and both sides may not overlap: else undefined,
//    and a violation. A copy of 0 bytes does nothing.
//  - Copies of a batch run in any order among themselves; the batch is in order with its stream.
//    Attributes have to begin at copy 0 and rise; a source order has to be given. Sources that may
//    be read out of order are read at once, before the stream's earlier work. The NULL stream
//    cannot take a batch. Empty batches and empty copies in one are refused, on which the reference
//    says nothing.
//
// Errors
//  - Calls that fail change nothing, except those that give back something: an error that they
//    report may be an earlier one of the device, so they give it back all the same.
//  - cudaGetLastError returns the thread's last error, and forgets it.
//  - A fault while work runs breaks the device: the rest of its work ends undone, whoever waits
//    gets the error, and so does every later call that uses the device (cudaSetDevice as well,
//    which then changes nothing). cudaGetLastError does not forget such an error. The other
//    devices go on.
//
// Seen on a device (an H200, driver 580.159.04, runtime 13.0, on 2026-11-28): copies whose host
// side is pinned in part or in two ranges, ranges that overlap, empty batches, empty copies in
// one, and batches in the NULL stream or without a source order are refused with the same errors.
// Copies to pageable memory waited for their stream's earlier work, cudaHostUnregister and
// cudaFreeHost for another stream's; cudaHostRegister and cudaHostAlloc did not. While
// cudaHostRegister ran, launches waited for it. After a fault every call that uses the device
// returned the error, but cudaSetDevice succeeded, and cudaGetLastError had forgotten it once it
// was fetched: there this is stricter.
//
// Not modelled: that a stream takes only so many copies that are no batch (on that device between
// 1,000 and 2,000), and more of them wait on the host; devices that only one process may use
// (cudaSetDevice can fail there); memory that stays pinned because the context that registered it
// broke; that the training's own calls, and libtorch's, fail on a broken device.
//
// Synchronisation of the whole device: the table has no call for it, but the guide lists some that
// imply it. Counted as such: cudaHostAlloc, cudaHostRegister and their opposites, cudaFree, copies
// in the NULL stream and waiting for it. Nothing here relies on it: schedules are as if it did not
// happen.
#pragma once

#include "stage/cuda_runtime.h"
#include "support/fake_cuda_schedule.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::test {

/// The functions of the table.
enum class Call {
  get_device_count,
  get_device,
  set_device,
  stream_create_with_flags,
  stream_destroy,
  stream_synchronize,
  stream_wait_event,
  stream_is_capturing,
  thread_exchange_stream_capture_mode,
  event_create_with_flags,
  event_destroy,
  event_record,
  event_synchronize,
  memcpy_async,
  memcpy_batch_async,
  malloc,
  free,
  host_register,
  host_unregister,
  host_alloc,
  free_host,
  get_last_error,
  get_error_name,
  get_error_string,
};
inline constexpr std::size_t kCalls = static_cast<std::size_t>(Call::get_error_string) + 1;
/// As CUDA calls it.
const char* name(Call call);

struct CudaCounters {
  std::array<std::uint64_t, kCalls> calls{};
  [[nodiscard]] std::uint64_t of(Call call) const { return calls[static_cast<std::size_t>(call)]; }

  std::uint64_t device_synchronisations = 0;  ///< implied ones, see above
  std::uint64_t pageable_copies = 0;          ///< synchronous, because their memory is not pinned
  std::uint64_t straddling_copies = 0;        ///< refused
  std::uint64_t copies_elsewhere = 0;         ///< begun while another device was current
  std::uint64_t busy_waits = 0;               ///< for events without cudaEventBlockingSync

  std::uint64_t registrations = 0;              ///< that succeeded
  std::uint64_t unpopulated_registrations = 0;  ///< begun while pages were missing
  std::uint64_t registered_bytes = 0;           ///< by them

  std::uint64_t copies = 0;          ///< those of batches too
  std::uint64_t batched_copies = 0;  ///< those of batches
  std::uint64_t bytes_to_host = 0;
  std::uint64_t bytes_to_device = 0;
  std::uint64_t bytes_between_devices = 0;  ///< or within one

  std::uint64_t launches = 0;  ///< of kernels, by the test
};

/// What a kernel sees of device memory. Valid while the kernel runs.
class DeviceMemoryAccess {
 public:
  virtual ~DeviceMemoryAccess() = default;
  /// The bytes at a device address. What is freed or out of range is a violation, and the bytes are
  /// then some that nobody else has.
  [[nodiscard]] virtual std::span<std::byte> at(const void* address, std::size_t bytes) = 0;
};

class FakeCuda {
 public:
  using Kernel = std::function<void(DeviceMemoryAccess&)>;
  struct Range {
    const void* begin;
    std::size_t bytes;
  };
  struct State;

  /// One at a time; the table calls the one that lives. A call while there is none ends the
  /// process.
  explicit FakeCuda(int devices = 1, Schedule schedule = Schedule::eager());
  /// Nobody may be waiting any more. Use CheckedFakeCuda, which looks at the violations.
  ~FakeCuda();
  FakeCuda(const FakeCuda&) = delete;
  FakeCuda& operator=(const FakeCuda&) = delete;

  /// For the code under test. The same table for all objects.
  static const stage::CudaRuntime& runtime();
  /// The one that lives, or none.
  static FakeCuda* current();
  /// Differs from that of all others of this process.
  [[nodiscard]] std::uint64_t id() const;
  [[nodiscard]] int devices() const;

  // --- What a training program would do. It is not counted, except launches.

  /// 256-byte aligned, filled with noise; null for 0 bytes.  @throws std::bad_alloc
  [[nodiscard]] void* device_alloc(int device, std::size_t bytes);
  /// Much memory over little: page-aligned, and its bytes are the first `period` of them (whole
  /// pages) again and again.
  [[nodiscard]] void* device_alloc_repeated(int device, std::size_t bytes, std::size_t period);
  /// At once: no pending work may use it.
  void device_free(void* memory);
  /// As libtorch's allocator: pending work may use it that comes before all that these streams will
  /// be given from now on.
  void device_free(void* memory, std::span<const cudaStream_t> streams);
  [[nodiscard]] bool is_device_memory(const void* address) const;
  /// Whether this is page-locked host memory.
  [[nodiscard]] bool is_pinned(const void* address) const;

  /// Of this thread.
  [[nodiscard]] int current_device() const;
  /// As cudaSetDevice.
  void set_current_device(int device);
  /// The devices that have a primary context, and the call that made each (or "the training").
  [[nodiscard]] std::map<int, std::string> contexts() const;

  /// A stream that lives as long as this object, cudaStreamNonBlocking or cudaStreamDefault.
  cudaStream_t training_stream(int device, unsigned flags = cudaStreamNonBlocking);
  /// The NULL stream of a device, whichever is current.
  [[nodiscard]] cudaStream_t null_stream(int device) const;
  /// What `stream` is given from now on waits for what `other` holds.
  void wait_for(cudaStream_t stream, cudaStream_t other);
  /// A kernel that may reach any device memory. Memory that it names may be freed in stream order
  /// before the kernel has run.
  void launch(cudaStream_t stream, Kernel kernel, std::span<const Range> uses = {});
  void launch(cudaStream_t stream, Kernel kernel, std::initializer_list<Range> uses) {
    launch(stream, std::move(kernel), std::span<const Range>(uses.begin(), uses.size()));
  }
  /// A kernel that sets each byte.
  void launch_fill(cudaStream_t stream, void* memory, std::size_t bytes, std::byte value);
  /// As cudaMemcpyAsync with cudaMemcpyDefault; throws std::runtime_error where that would fail.
  void copy(cudaStream_t stream, void* to, const void* from, std::size_t bytes);
  /// From now on, until it is ended, what the stream is given would be captured into a graph, by
  /// the calling thread.
  void begin_graph_capture(cudaStream_t stream,
                           cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal);
  /// @returns whether there is a graph: the capture was not lost.
  bool end_graph_capture(cudaStream_t stream);
  /// Until the stream's work has ended.
  void synchronise(cudaStream_t stream);
  /// Whether the stream's work has ended.
  [[nodiscard]] bool idle(cudaStream_t stream) const;

  /// Keeps a stream from going on, as a kernel would that waits for the host.
  class Hold {
   public:
    Hold() = default;
    Hold(FakeCuda& cuda, std::shared_ptr<bool> held) : cuda_(&cuda), held_(std::move(held)) {}
    Hold(Hold&&) noexcept = default;
    Hold& operator=(Hold&&) = delete;
    ~Hold() { release(); }
    void release();

   private:
    FakeCuda* cuda_ = nullptr;
    std::shared_ptr<bool> held_;
  };
  [[nodiscard]] Hold hold(cudaStream_t stream);

  // --- What a test does behind everybody's back: at once, whatever is pending.

  /// @throws std::out_of_range
  void write(void* memory, std::span<const std::byte> bytes);
  [[nodiscard]] std::vector<std::byte> read(const void* memory, std::size_t bytes) const;

  /// The nth call of this function from now on returns this error, once. Where the function
  /// returns words, they are those for an unknown error.
  void fail(Call call, unsigned nth, cudaError_t error);
  /// The nth copy of the code under test that is begun from now on breaks its device.
  void fault_copy(unsigned nth, cudaError_t error = cudaErrorIllegalAddress);
  /// Breaks a device now.
  void fault_device(int device, cudaError_t error = cudaErrorLaunchFailure);
  /// Each call of cudaHostRegister takes so long, and every other call waits for it.
  void let_registering_take(std::chrono::nanoseconds time);
  /// More pinned memory than this is cudaErrorMemoryAllocation.
  void limit_pinned_bytes(std::size_t bytes);
  /// A registration of more than this at once is cudaErrorMemoryAllocation; what cudaHostAlloc
  /// allocates may be larger.
  void limit_registration(std::size_t bytes);

  [[nodiscard]] CudaCounters counters() const;
  void reset_counters();
  /// Calls of the table so far, by the calling thread alone.
  [[nodiscard]] std::uint64_t calls_of_this_thread() const;
  /// Page-locked at the moment.
  [[nodiscard]] std::size_t pinned_bytes() const;
  /// Allocated by cudaMalloc and not freed, on all devices.
  [[nodiscard]] std::size_t allocated_bytes() const;
  /// More than this, on all devices, is cudaErrorMemoryAllocation.
  void limit_allocated_bytes(std::size_t bytes);

  /// Lets all work end, then looks for what was not given back (pinned memory, streams and events
  /// of a device that is not broken). @returns all violations, in the order in which they happened.
  [[nodiscard]] std::vector<std::string> finish();
  /// Those until now, which are then forgotten.
  [[nodiscard]] std::vector<std::string> take_violations();

 private:
  std::unique_ptr<State> state_;
};

}  // namespace ckptring::test
