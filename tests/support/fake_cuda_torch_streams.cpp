#include "support/fake_cuda_torch_streams.h"

#include "support/fake_cuda_torch.h"
#include "support/fake_cuda_torch_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

namespace ckptring::test {
namespace fake_cuda {
namespace {

/// Of this thread, for one FakeCuda.
struct Current {
  std::uint64_t cuda = 0;
  /// The streams of its devices; default where there is none.
  std::map<c10::DeviceIndex, c10::StreamId> streams;
  /// Instead of the runtime's own, which has a context.
  std::optional<c10::DeviceIndex> device;
};
thread_local Current current_of_thread;

Current& current() {
  const std::uint64_t id = living().id();
  if (current_of_thread.cuda != id) current_of_thread = {id, {}, {}};
  return current_of_thread;
}

void check(cudaError_t error) {
  TORCH_CHECK(error == cudaSuccess, "CUDA error: ", FakeCuda::runtime().get_error_string(error));
}

/// The id of a stream is its handle; 0 is the default stream.
cudaStream_t native(const c10::Stream& stream) {
  return reinterpret_cast<cudaStream_t>(static_cast<std::uintptr_t>(stream.id()));
}

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override {
    return cuda_device(
        current().device.value_or(static_cast<c10::DeviceIndex>(living().current_device())));
  }
  void setDevice(c10::Device device) const override {
    if (!device.has_index()) return;
    TORCH_CHECK(device.index() < deviceCount(), "CUDA error: invalid device ordinal");
    current().device.reset();
    if (device.index() != living().current_device()) living().set_current_device(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (!device.has_index() || device.index() >= deviceCount()) return;
    if (living().contexts().contains(device.index())) {
      setDevice(device);
    } else {
      current().device = device.index();
    }
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    const FakeCuda* const cuda = FakeCuda::current();
    return cuda == nullptr ? c10::DeviceIndex{0} : static_cast<c10::DeviceIndex>(cuda->devices());
  }

  c10::Stream getStream(c10::Device device) const override {
    const c10::Device whole = device.has_index() ? device : getDevice();
    const auto& streams = current().streams;
    const auto found = streams.find(whole.index());
    return c10::Stream(c10::Stream::UNSAFE, whole, found == streams.end() ? 0 : found->second);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool /*priority*/) const override {
    return getNewStream(device);
  }
  c10::Stream getNewStream(c10::Device device, int /*priority*/ = 0) const override {
    const c10::Device whole = device.has_index() ? device : getDevice();
    auto* const handle = living().training_stream(whole.index());
    return c10::Stream(c10::Stream::UNSAFE, whole,
                       static_cast<c10::StreamId>(reinterpret_cast<std::uintptr_t>(handle)));
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    current().streams[stream.device_index()] = stream.id();
    return before;
  }
  void* getStreamNativeHandle(const c10::Stream stream) const override { return native(stream); }
  bool queryStream(const c10::Stream& stream) const override {
    return living().idle(handle_of(stream));
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    const c10::Device before = exchangeDevice(stream.device());
    const cudaError_t result = FakeCuda::runtime().stream_synchronize(native(stream));
    setDevice(before);
    check(result);
  }

  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex /*device*/,
              const c10::EventFlag flag) const override {
    const stage::CudaRuntime& api = FakeCuda::runtime();
    const c10::Device before = exchangeDevice(stream.device());
    auto* made = static_cast<cudaEvent_t>(*event);
    if (made == nullptr) {
      check(api.event_create_with_flags(&made, flag == c10::EventFlag::BACKEND_DEFAULT
                                                   ? cudaEventDefault
                                                   : cudaEventDisableTiming));
      *event = made;
    }
    check(api.event_record(made, native(stream)));
    setDevice(before);
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event == nullptr) return;
    const c10::Device before = exchangeDevice(stream.device());
    check(FakeCuda::runtime().stream_wait_event(native(stream), static_cast<cudaEvent_t>(event),
                                                cudaEventWaitDefault));
    setDevice(before);
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) {
      check(FakeCuda::runtime().event_synchronize(static_cast<cudaEvent_t>(event)));
    }
  }
  bool queryEvent(void* event) const override {
    synchronizeEvent(event);  // a yes or no would depend on the schedule
    return true;
  }
  double elapsedTime(void* /*first*/, void* /*second*/,
                     const c10::DeviceIndex /*device*/) const override {
    return 0;  // there is no time on these devices
  }
  void destroyEvent(void* event, const c10::DeviceIndex /*device*/) const noexcept override {
    if (event != nullptr && FakeCuda::current() != nullptr) {
      (void)FakeCuda::runtime().event_destroy(static_cast<cudaEvent_t>(event));
    }
  }
  void recordDataPtrOnStream(const c10::DataPtr& memory, const c10::Stream& stream) const override {
    record_stream(memory, handle_of(stream));
  }
};

// Lives as long as the process, as all of them do.
const c10::impl::DeviceGuardImplRegistrar registrar(c10::kCUDA, new Guard());

const c10::impl::DeviceGuardImplInterface& guard() {
  return *c10::impl::getDeviceGuardImpl(c10::kCUDA);
}

}  // namespace

FakeCuda& living() {
  FakeCuda* const cuda = FakeCuda::current();
  TORCH_CHECK(cuda != nullptr, "there is no FakeCuda");
  return *cuda;
}

cudaStream_t handle_of(const c10::Stream& stream) {
  return stream.id() == 0 ? living().null_stream(stream.device_index()) : native(stream);
}

cudaStream_t current_handle(c10::Device device) { return handle_of(guard().getStream(device)); }

}  // namespace fake_cuda

c10::Stream pool_stream(int device) {
  return fake_cuda::guard().getStreamFromGlobalPool(cuda_device(device));
}

cudaStream_t native_handle(const c10::Stream& stream) {
  return static_cast<cudaStream_t>(fake_cuda::guard().getStreamNativeHandle(stream));
}

c10::Stream current_stream(int device) { return fake_cuda::guard().getStream(cuda_device(device)); }

c10::Device current_device() { return fake_cuda::guard().getDevice(); }

void synchronise(const c10::Stream& stream) {
  fake_cuda::living().synchronise(fake_cuda::handle_of(stream));
}

}  // namespace ckptring::test
