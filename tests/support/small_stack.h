// A thread with a stack as small as some programs give theirs.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <exception>
#include <functional>
#include <stdexcept>

namespace ckptring::test {

inline constexpr std::size_t kSmallStack = 128 << 10;

/// Runs `call` there and waits for it. What it throws is thrown here.
inline void on_small_stack(const std::function<void()>& call) {
  struct Run {
    const std::function<void()>& call;
    std::exception_ptr failure;
  } run{call, nullptr};
  ::pthread_attr_t attributes;
  ::pthread_t thread{};
  if (::pthread_attr_init(&attributes) != 0 ||
      ::pthread_attr_setstacksize(&attributes, kSmallStack) != 0 ||
      ::pthread_create(
          &thread, &attributes,
          [](void* argument) -> void* {
            auto& given = *static_cast<Run*>(argument);
            try {
              given.call();
            } catch (...) {
              given.failure = std::current_exception();
            }
            return nullptr;
          },
          &run) != 0) {
    throw std::runtime_error("start a thread with a small stack");
  }
  (void)::pthread_attr_destroy(&attributes);
  (void)::pthread_join(thread, nullptr);
  if (run.failure) std::rethrow_exception(run.failure);
}

}  // namespace ckptring::test
