// Threads of this library, in which nobody else's code runs: what they leave behind in thread-local
// state (a current device, for example) is nobody's business.
#pragma once

#include <functional>

namespace ckptring::os {

/// For the calling thread, which is one from now on until it ends: a name for top and gdb, at most
/// 15 characters.
void become_own_thread(const char* name) noexcept;

/// Whether the calling thread is one.
[[nodiscard]] bool is_own_thread() noexcept;

/// Runs `work`, which must not throw, in one that is made for it, and waits until it has returned.
/// In the calling thread if the system allows no more threads.
void run_in_own_thread(const char* name, const std::function<void()>& work) noexcept;

}  // namespace ckptring::os
