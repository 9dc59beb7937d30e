// What libtorch throws, in this library's terms.
#pragma once

#include "base/out_of_memory.h"

#include <ckptring/error.h>

#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <new>
#include <string>
#include <utility>

namespace ckptring::torch_state {

/// Libtorch's own words, without the list of kernels and where it was raised that may follow.
std::string words_of(const c10::Error& failure);

/// Whether there was no memory for it, of a device or of the host, which libtorch has no kind for.
bool is_out_of_memory(const c10::Error& failure);

/// The code for what failed on `device`: out_of_memory; device_failed on a CUDA device that there
/// is; invalid_argument on a device that cannot be used at all; internal on the host.
ErrorCode code_of(const c10::Error& failure, const c10::Device& device);

/// "copy to device 0" as the copy engines say it, "copy to cpu".
std::string copy_to(const c10::Device& device);

/// Calls `use`, which works on `device` through libtorch.
/// @throws Error with libtorch's own words instead of c10::Error
template <class Use>
auto through_libtorch(const c10::Device& device, const std::string& operation, Use&& use) {
  try {
    return std::forward<Use>(use)();
  } catch (const c10::Error& failure) {
    throw Error(code_of(failure, device), operation, "", words_of(failure));
  }
}

/// What a public call does: nothing but Error leaves it, and that says what it was for. What of
/// libtorch's refusals could be foreseen was named with its key; this is for the others.
/// @param operation, path as Error has them
/// @param code for what libtorch refuses
template <class Use>
auto in_own_words(ErrorCode code, const char* operation, const std::string& path, Use&& use) {
  try {
    return std::forward<Use>(use)();
  } catch (const Error& failure) {
    // Without a path there is nothing to add.
    if (!failure.path().empty() || path.empty()) throw;
    throw Error(failure.code(), operation, path, failure.operation() + ": " + failure.cause(),
                failure.errno_value());
  } catch (const c10::Error& failure) {
    if (is_out_of_memory(failure)) {
      throw Error(ErrorCode::out_of_memory, operation, path, words_of(failure));
    }
    throw Error(code, operation, path, "libtorch refuses: " + words_of(failure));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::out_of_memory, operation, path, base::kNoMemory);
  }
}

}  // namespace ckptring::torch_state
