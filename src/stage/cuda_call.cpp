#include "stage/cuda_call.h"

#include "os/own_thread.h"

#include <fmt/format.h>

namespace ckptring::stage {
namespace {

/// Of this thread's scopes, those that live.
thread_local unsigned depth = 0;
/// Whether this thread is in cudaStreamCaptureModeRelaxed because of us.
thread_local bool relaxed = false;

bool has_context(const CudaRuntime& runtime, int device) {
  return runtime.has_context == nullptr || runtime.has_context(device);
}

}  // namespace

std::string words_of(const CudaRuntime& runtime, cudaError_t result) {
  return fmt::format("{}: {}", runtime.get_error_name(result), runtime.get_error_string(result));
}

void check_cuda(const CudaRuntime& runtime, cudaError_t result, const std::string& operation) {
  if (result == cudaSuccess) return;
  allow_failure(runtime, result);
  throw Error(ErrorCode::device_failed, operation, "", words_of(runtime, result));
}

void refuse_graph_capture(const CudaRuntime& runtime, cudaStream_t stream,
                          const std::string& operation) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t result = runtime.stream_is_capturing(stream, &status);
  // Of the NULL stream, which may not even be asked while another one is captured.
  const bool implied = result == cudaErrorStreamCaptureImplicit;
  if (!implied) check_cuda(runtime, result, operation);
  if (!implied && status == cudaStreamCaptureStatusNone) return;
  allow_failure(runtime, result);
  throw Error(
      ErrorCode::invalid_argument, operation, "",
      "the stream is being captured into a CUDA graph, of which no save or load can be a part: "
      "call before the capture or after it");
}

void allow_failure(const CudaRuntime& runtime, cudaError_t result) noexcept {
  if (result != cudaSuccess) (void)runtime.get_last_error();
}

CudaRelaxedCaptureMode::~CudaRelaxedCaptureMode() {
  if (!give_back_) return;
  allow_failure(runtime_, runtime_.thread_exchange_stream_capture_mode(&before_));
  relaxed = false;
}

cudaError_t CudaRelaxedCaptureMode::begin() noexcept {
  if (relaxed) return cudaSuccess;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  const cudaError_t result = runtime_.thread_exchange_stream_capture_mode(&mode);
  if (result != cudaSuccess) return result;
  before_ = mode;
  relaxed = true;
  give_back_ = !os::is_own_thread();
  return cudaSuccess;
}

CudaDeviceScope::CudaDeviceScope(const CudaRuntime& runtime) noexcept
    : runtime_(runtime), capture_mode_(runtime) {
  ++depth;
}

// What these have begun when they fail, the destructor ends.
CudaDeviceScope::CudaDeviceScope(const CudaRuntime& runtime, int device,
                                 const std::string& operation)
    : CudaDeviceScope(runtime) {
  check_cuda(runtime_, enter(device), operation);
}

CudaDeviceScope::CudaDeviceScope(const CudaRuntime& runtime, int device) noexcept
    : CudaDeviceScope(runtime) {
  allow_failure(runtime_, enter(device));
}

cudaError_t CudaDeviceScope::enter(int device) noexcept {
  const bool within_another = depth > 1;
  if (const cudaError_t result = runtime_.get_device(&before_); result != cudaSuccess) {
    return result;
  }
  if (before_ != device) {
    if (const cudaError_t result = runtime_.set_device(device); result != cudaSuccess) {
      return result;
    }
    give_back_ = within_another || (!os::is_own_thread() && has_context(runtime_, before_));
  }
  return capture_mode_.begin();
}

CudaDeviceScope::~CudaDeviceScope() {
  // It was current before, so it can be again, unless its context broke meanwhile: then whatever
  // the thread does next says so.
  if (give_back_) allow_failure(runtime_, runtime_.set_device(before_));
  --depth;
}

}  // namespace ckptring::stage
