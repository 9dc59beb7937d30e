// Checking what calls of the CUDA runtime return, and on which device they work.
#pragma once

#include "stage/cuda_runtime.h"

#include <ckptring/error.h>

#include <string>

namespace ckptring::stage {

/// "cudaErrorNoDevice: no CUDA-capable device is detected".
std::string words_of(const CudaRuntime& runtime, cudaError_t result);

/// @throws Error device_failed if `result` is none of success. The thread's last error is cleared,
///         so that nobody else takes it for theirs; one that breaks the context stays with it.
void check_cuda(const CudaRuntime& runtime, cudaError_t result, const std::string& operation);

/// What is recorded on a stream, or waits in it, while that is being captured into a graph becomes
/// a part of the graph: nobody can say when it runs, and the capture is lost.
/// @throws Error invalid_argument if it is, device_failed
void refuse_graph_capture(const CudaRuntime& runtime, cudaStream_t stream,
                          const std::string& operation);

/// For calls whose failure changes nothing here. Clears the thread's last error likewise.
void allow_failure(const CudaRuntime& runtime, cudaError_t result) noexcept;

/// Puts the thread into cudaStreamCaptureModeRelaxed. In the mode that threads begin with, whatever
/// is not enqueued in a stream (cudaMalloc, cudaHostRegister, waiting for an event) is refused
/// while another thread captures a CUDA graph, as libtorch does it, and that capture is lost: the
/// graph could not do it again. Nothing of what is called here belongs to a graph.
///
/// The library's own threads stay in it. A thread of others gets its mode back when this goes.
class CudaRelaxedCaptureMode {
 public:
  explicit CudaRelaxedCaptureMode(const CudaRuntime& runtime) noexcept : runtime_(runtime) {}
  ~CudaRelaxedCaptureMode();
  CudaRelaxedCaptureMode(const CudaRelaxedCaptureMode&) = delete;
  CudaRelaxedCaptureMode& operator=(const CudaRelaxedCaptureMode&) = delete;
  /// On the current device, on which it may make a context: see CudaDeviceScope.
  cudaError_t begin() noexcept;

 private:
  const CudaRuntime& runtime_;
  cudaStreamCaptureMode before_ = cudaStreamCaptureModeGlobal;
  bool give_back_ = false;
};

/// Makes a device the thread's current one, and disturbs no capture of a CUDA graph. Around every
/// call that needs one: even those that name a stream or an event make a context on the current
/// device, if that has none, and each thread begins with device 0.
///
/// The library's own threads keep the new one, unless this is within another scope: to make the old
/// one current again would make a context there too, much memory of a device that may not be ours
/// at all. A thread of others gets its device back when this goes, if that has a context; if not,
/// the new one stays current, as it does where libtorch's guard goes.
class CudaDeviceScope {
 public:
  /// @param operation  what is to be done there
  /// @throws Error device_failed
  CudaDeviceScope(const CudaRuntime& runtime, int device, const std::string& operation);
  /// Where nobody could do anything about a failure, which shows in the calls that follow.
  CudaDeviceScope(const CudaRuntime& runtime, int device) noexcept;
  ~CudaDeviceScope();
  CudaDeviceScope(const CudaDeviceScope&) = delete;
  CudaDeviceScope& operator=(const CudaDeviceScope&) = delete;

 private:
  explicit CudaDeviceScope(const CudaRuntime& runtime) noexcept;
  cudaError_t enter(int device) noexcept;

  const CudaRuntime& runtime_;
  int before_ = 0;
  bool give_back_ = false;
  CudaRelaxedCaptureMode capture_mode_;
};

}  // namespace ckptring::stage
