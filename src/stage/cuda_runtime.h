// The CUDA runtime as a table of functions: the only file that includes its headers.
//
// Nothing here links libcudart or defines a name of it. The table is filled at run time from the
// library of the headers' major version (libtorch brings the one that it was built for), so one
// build runs with and without CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace ckptring::stage {

#if CUDART_VERSION < 13000
#error "CUDA 13 or newer: cudaMemcpyBatchAsync had other arguments before"
#endif

/// Every call that is made, under its name without the prefix.
struct CudaRuntime {
  decltype(&::cudaGetDeviceCount) get_device_count = nullptr;
  decltype(&::cudaGetDevice) get_device = nullptr;
  decltype(&::cudaSetDevice) set_device = nullptr;

  decltype(&::cudaStreamCreateWithFlags) stream_create_with_flags = nullptr;
  decltype(&::cudaStreamDestroy) stream_destroy = nullptr;
  decltype(&::cudaStreamSynchronize) stream_synchronize = nullptr;
  decltype(&::cudaStreamWaitEvent) stream_wait_event = nullptr;
  decltype(&::cudaStreamIsCapturing) stream_is_capturing = nullptr;
  decltype(&::cudaThreadExchangeStreamCaptureMode) thread_exchange_stream_capture_mode = nullptr;

  decltype(&::cudaEventCreateWithFlags) event_create_with_flags = nullptr;
  decltype(&::cudaEventDestroy) event_destroy = nullptr;
  decltype(&::cudaEventRecord) event_record = nullptr;
  decltype(&::cudaEventSynchronize) event_synchronize = nullptr;

  // A function that C++ overloads in cuda_runtime.h; this is the one of the API.
  cudaError_t (*memcpy_async)(void* to, const void* from, size_t count, cudaMemcpyKind kind,
                              cudaStream_t stream) = nullptr;
  // May answer cudaErrorNotSupported: an older driver.
  decltype(&::cudaMemcpyBatchAsync) memcpy_batch_async = nullptr;

  decltype(&::cudaMalloc) malloc = nullptr;
  decltype(&::cudaFree) free = nullptr;

  decltype(&::cudaHostRegister) host_register = nullptr;
  decltype(&::cudaHostUnregister) host_unregister = nullptr;
  decltype(&::cudaHostAlloc) host_alloc = nullptr;
  decltype(&::cudaFreeHost) free_host = nullptr;

  decltype(&::cudaGetLastError) get_last_error = nullptr;
  decltype(&::cudaGetErrorName) get_error_name = nullptr;
  decltype(&::cudaGetErrorString) get_error_string = nullptr;

  /// Of the driver, which the runtime does not pass on: whether a device has a (primary) context.
  /// True where the driver cannot be asked, as if this is null. Makes none.
  bool (*has_context)(int device) = nullptr;
};

/// The table, or why there is none.
struct FoundCudaRuntime {
  const CudaRuntime* runtime = nullptr;  ///< lives as long as the process
  std::string why_not;                   ///< in words, if there is none
};

/// Looks for libcudart (of the version that the headers are of) when first called.
FoundCudaRuntime find_cuda_runtime();

}  // namespace ckptring::stage
