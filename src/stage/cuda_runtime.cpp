#include "stage/cuda_runtime.h"

#include "os/new_fd.h"

#include <dlfcn.h>

#include <type_traits>

namespace ckptring::stage {
namespace {

/// The library's major version promises the same functions with the same arguments.
constexpr int kMajor = CUDART_VERSION / 1000;

/// The runtime has loaded the driver's library once it knows of a device.
bool has_context(int device) {
  using State = int (*)(int device, unsigned* flags, int* active);
  static const State primary_context_state = [] {
    const os::StandardNumbersTaken taken;  // to look for the library opens files
    void* const driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return driver == nullptr
               ? nullptr
               : reinterpret_cast<State>(::dlsym(driver, "cuDevicePrimaryCtxGetState"));
  }();
  unsigned flags = 0;
  int active = 1;
  // The driver numbers devices as the runtime does, and a number is its handle of a device.
  const bool known = primary_context_state != nullptr &&
                     primary_context_state(device, &flags, &active) == 0;  // CUDA_SUCCESS
  return !known || active != 0;
}

FoundCudaRuntime load() {
  static CudaRuntime& runtime = *new CudaRuntime;
  const std::string library = "libcudart.so." + std::to_string(kMajor);
  // Never closed: it holds what other libraries of the process use as well.
  void* const handle = [&] {
    const os::StandardNumbersTaken taken;  // it opens files
    return ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  }();
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return {nullptr, "cannot load " + library + ": " + (why != nullptr ? why : "unknown reason")};
  }
  std::string missing;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(handle, name));
    if (function == nullptr && missing.empty()) missing = name;
  };
  find("cudaGetDeviceCount", runtime.get_device_count);
  find("cudaGetDevice", runtime.get_device);
  find("cudaSetDevice", runtime.set_device);
  find("cudaStreamCreateWithFlags", runtime.stream_create_with_flags);
  find("cudaStreamDestroy", runtime.stream_destroy);
  find("cudaStreamSynchronize", runtime.stream_synchronize);
  find("cudaStreamWaitEvent", runtime.stream_wait_event);
  find("cudaStreamIsCapturing", runtime.stream_is_capturing);
  find("cudaThreadExchangeStreamCaptureMode", runtime.thread_exchange_stream_capture_mode);
  find("cudaEventCreateWithFlags", runtime.event_create_with_flags);
  find("cudaEventDestroy", runtime.event_destroy);
  find("cudaEventRecord", runtime.event_record);
  find("cudaEventSynchronize", runtime.event_synchronize);
  find("cudaMemcpyAsync", runtime.memcpy_async);
  find("cudaMemcpyBatchAsync", runtime.memcpy_batch_async);
  find("cudaMalloc", runtime.malloc);
  find("cudaFree", runtime.free);
  find("cudaHostRegister", runtime.host_register);
  find("cudaHostUnregister", runtime.host_unregister);
  find("cudaHostAlloc", runtime.host_alloc);
  find("cudaFreeHost", runtime.free_host);
  find("cudaGetLastError", runtime.get_last_error);
  find("cudaGetErrorName", runtime.get_error_name);
  find("cudaGetErrorString", runtime.get_error_string);
  runtime.has_context = has_context;
  if (!missing.empty()) return {nullptr, library + " has no function " + missing};
  return {&runtime, ""};
}

}  // namespace

FoundCudaRuntime find_cuda_runtime() {
  static const FoundCudaRuntime& found = *new FoundCudaRuntime(load());
  return found;
}

}  // namespace ckptring::stage
