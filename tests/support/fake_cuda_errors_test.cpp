#include "support/fake_cuda.h"

#include "support/fake_cuda_rules.h"

#include <string>
#include <thread>
#include <vector>

namespace ckptring::test {
namespace {

using FakeCudaFaults = FakeCudaSchedules;
FAKE_CUDA_SCHEDULES(FakeCudaFaults);

/// One call of each function, each of which would succeed.
class FakeCudaFailures : public FakeCudaRules, public testing::WithParamInterface<Call> {
 public:
  ~FakeCudaFailures() override {
    (void)api_.event_destroy(event_);
    (void)api_.stream_destroy(stream_);
  }

 protected:
  FakeCudaFailures() {
    stream_ = make_stream();
    event_ = make_event();
    memory_ = device_memory(0, 10, 1);
  }
  cudaError_t call(Call which) {
    int number = 0;
    switch (which) {
      case Call::get_device_count:
        return api_.get_device_count(&number);
      case Call::get_device:
        return api_.get_device(&number);
      case Call::set_device:
        return api_.set_device(0);
      case Call::stream_create_with_flags:
        return api_.stream_create_with_flags(&made_stream_, 0);
      case Call::stream_destroy:
        return api_.stream_destroy(stream_);
      case Call::stream_synchronize:
        return api_.stream_synchronize(stream_);
      case Call::stream_wait_event:
        return api_.stream_wait_event(stream_, event_, 0);
      case Call::stream_is_capturing:
        return api_.stream_is_capturing(stream_, &status_);
      case Call::thread_exchange_stream_capture_mode:
        return api_.thread_exchange_stream_capture_mode(&mode_);
      case Call::event_create_with_flags:
        return api_.event_create_with_flags(&made_event_, 0);
      case Call::event_destroy:
        return api_.event_destroy(event_);
      case Call::event_record:
        return api_.event_record(event_, stream_);
      case Call::event_synchronize:
        return api_.event_synchronize(event_);
      case Call::memcpy_async:
        return copy(host_.data(), memory_, 10, stream_);
      case Call::memcpy_batch_async:
        return batch({host_.data()}, {memory_}, {10}, stream_);
      case Call::malloc:
        return api_.malloc(&allocated_, 10);
      case Call::free:
        return api_.free(nullptr);
      case Call::host_register:
        return api_.host_register(pages_.data(), kPage, 0);
      case Call::host_unregister:
        return api_.host_unregister(host_.data());
      case Call::host_alloc:
        return api_.host_alloc(&allocated_, 10, 0);
      case Call::free_host:
        return api_.free_host(nullptr);
      case Call::get_last_error:
        return api_.get_last_error();
      case Call::get_error_name:
        return std::string(api_.get_error_name(cudaSuccess)) == "cudaSuccess" ? cudaSuccess
                                                                              : cudaErrorUnknown;
      case Call::get_error_string:
        return std::string(api_.get_error_string(cudaSuccess)) == "no error" ? cudaSuccess
                                                                             : cudaErrorUnknown;
    }
    return cudaErrorUnknown;
  }
  void undo(Call which) {
    if (which == Call::stream_create_with_flags) (void)api_.stream_destroy(made_stream_);
    if (which == Call::event_create_with_flags) (void)api_.event_destroy(made_event_);
    if (which == Call::malloc) (void)api_.free(allocated_);
    if (which == Call::host_register) (void)api_.host_unregister(pages_.data());
    if (which == Call::host_alloc) (void)api_.free_host(allocated_);
    cuda_.synchronise(nullptr);
    if (which != Call::stream_destroy) cuda_.synchronise(stream_);
  }

  Pages pages_{kPage};
  cudaStream_t stream_ = nullptr;
  cudaStream_t made_stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
  cudaEvent_t made_event_ = nullptr;
  void* memory_ = nullptr;
  void* allocated_ = nullptr;
  cudaStreamCaptureStatus status_ = cudaStreamCaptureStatusNone;
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeGlobal;
};

TEST_P(FakeCudaFailures, HappenOnceWhereTheyAreAskedFor) {
  const Call which = GetParam();
  cuda_.fail(which, 2, cudaErrorUnknown);
  EXPECT_EQ(call(which), cudaSuccess);
  undo(which);
  EXPECT_EQ(call(which), cudaErrorUnknown);
  if (which < Call::get_last_error) {
    EXPECT_EQ(api_.get_last_error(), cudaErrorUnknown);
  }
  EXPECT_EQ(api_.get_last_error(), cudaSuccess);
  EXPECT_EQ(call(which), cudaSuccess);
  undo(which);
}
/// Without those that give back what a second call would need.
std::vector<Call> calls_to_repeat() {
  std::vector<Call> calls;
  for (std::size_t i = 0; i < kCalls; ++i) {
    const auto call = static_cast<Call>(i);
    if (call != Call::stream_destroy && call != Call::event_destroy &&
        call != Call::host_unregister) {
      calls.push_back(call);
    }
  }
  return calls;
}
INSTANTIATE_TEST_SUITE_P(All, FakeCudaFailures, testing::ValuesIn(calls_to_repeat()),
                         [](const auto& test) { return std::string(name(test.param)); });

TEST_F(FakeCudaRules, CallsThatFailGiveBackAllTheSame) {
  auto* const stream = make_stream();
  auto* const event = make_event();
  const Pages pages(kPage);
  (void)api_.host_register(pages.data(), kPage, 0);
  void* allocated = nullptr;
  (void)api_.host_alloc(&allocated, 10, 0);
  void* on_device = nullptr;
  (void)api_.malloc(&on_device, 10);
  for (const Call call : {Call::stream_destroy, Call::event_destroy, Call::host_unregister,
                          Call::free_host, Call::free}) {
    cuda_.fail(call, 1, cudaErrorUnknown);
  }
  EXPECT_EQ(api_.stream_destroy(stream), cudaErrorUnknown);
  EXPECT_EQ(api_.event_destroy(event), cudaErrorUnknown);
  EXPECT_EQ(api_.host_unregister(pages.data()), cudaErrorUnknown);
  EXPECT_EQ(api_.free_host(allocated), cudaErrorUnknown);
  EXPECT_EQ(api_.free(on_device), cudaErrorUnknown);
  EXPECT_EQ(cuda_.allocated_bytes(), 0u);
  EXPECT_EQ(cuda_.pinned_bytes(), host_.size());
}

TEST_F(FakeCudaRules, TheLastErrorIsThatOfTheThreadAndIsForgotten) {
  (void)api_.set_device(9);
  std::thread([&] { EXPECT_EQ(api_.get_last_error(), cudaSuccess); }).join();
  (void)api_.set_device(0);
  EXPECT_EQ(api_.get_last_error(), cudaErrorInvalidDevice);
  EXPECT_EQ(api_.get_last_error(), cudaSuccess);
}

TEST_P(FakeCudaFaults, AFaultOfACopyBreaksItsDeviceAndNoOther) {
  auto* const stream = make_stream();
  auto* const other = cuda_.training_stream(1);
  auto* const event = make_event();
  void* const memory = device_memory(0, 100, 1);
  host_.fill(5);
  cuda_.fault_copy(2, cudaErrorECCUncorrectable);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_THAT(copy(host_.data() + 100 * i, memory, 100, stream),
                testing::AnyOf(cudaSuccess, cudaErrorECCUncorrectable));
  }
  const cudaError_t recorded = api_.event_record(event, stream);
  if (recorded == cudaSuccess) {
    EXPECT_EQ(api_.event_synchronize(event), cudaErrorECCUncorrectable);
  } else {
    EXPECT_EQ(recorded, cudaErrorECCUncorrectable);
  }
  EXPECT_EQ(host_.data()[0], std::byte{1});
  EXPECT_EQ(host_.data()[100], std::byte{5});
  EXPECT_EQ(host_.data()[200], std::byte{5});

  cudaStream_t none = nullptr;
  EXPECT_EQ(copy(host_.data(), memory, 100, stream), cudaErrorECCUncorrectable);
  EXPECT_EQ(api_.stream_create_with_flags(&none, 0), cudaErrorECCUncorrectable);
  EXPECT_EQ(api_.stream_wait_event(other, event, 0), cudaErrorECCUncorrectable);
  EXPECT_EQ(api_.get_last_error(), cudaErrorECCUncorrectable);
  EXPECT_EQ(api_.get_last_error(), cudaErrorECCUncorrectable) << "it lasts";
  EXPECT_EQ(api_.event_destroy(event), cudaErrorECCUncorrectable);
  EXPECT_EQ(api_.stream_destroy(stream), cudaErrorECCUncorrectable);

  EXPECT_EQ(api_.set_device(1), cudaSuccess);
  EXPECT_EQ(api_.set_device(0), cudaErrorECCUncorrectable);
  EXPECT_EQ(copy(host_.data(), device_memory(1, 10, 9), 10, other), cudaSuccess);
  EXPECT_EQ(api_.stream_synchronize(other), cudaSuccess);
  EXPECT_EQ(host_.data()[0], std::byte{9});
}

TEST_F(LateFakeCuda, ABrokenDeviceLetsGoWhoWaits) {
  auto* const stream = cuda_.training_stream(0);
  auto held = cuda_.hold(stream);
  std::thread waits([&] { EXPECT_EQ(api_.stream_synchronize(stream), cudaErrorLaunchFailure); });
  cuda_.fault_device(0);
  waits.join();
  EXPECT_EQ(api_.host_unregister(host_.data()), cudaErrorLaunchFailure) << "and yet it is";
  EXPECT_EQ(cuda_.pinned_bytes(), 0u);
}

TEST_F(FakeCudaRules, ErrorsHaveTheirWords) {
  EXPECT_STREQ(api_.get_error_name(cudaErrorIllegalAddress), "cudaErrorIllegalAddress");
  EXPECT_STREQ(api_.get_error_string(cudaErrorIllegalAddress),
               "an illegal memory access was encountered");
}

}  // namespace
}  // namespace ckptring::test
