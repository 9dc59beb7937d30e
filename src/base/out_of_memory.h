// Want of memory as an Error: what leaves a public call, or comes with a future, is nothing else.
#pragma once

#include <ckptring/error.h>

#include <exception>
#include <new>
#include <string>
#include <utility>

namespace ckptring::base {

inline constexpr const char* kNoMemory = "there is no memory left for it";

/// Calls `use`.
/// @throws Error out_of_memory instead of std::bad_alloc
template <class Use>
auto or_out_of_memory(const char* operation, const std::string& path, Use&& use) {
  try {
    return std::forward<Use>(use)();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::out_of_memory, operation, path, kNoMemory);
  }
}

/// What was caught, std::bad_alloc as Error out_of_memory: if there is memory for the words.
inline std::exception_ptr as_error(const char* operation, const std::string& path,
                                   const std::exception_ptr& failure) noexcept {
  try {
    std::rethrow_exception(failure);
  } catch (const std::bad_alloc&) {
    try {
      return std::make_exception_ptr(Error(ErrorCode::out_of_memory, operation, path, kNoMemory));
    } catch (...) {
      return failure;
    }
  } catch (...) {
    return failure;
  }
}

}  // namespace ckptring::base
