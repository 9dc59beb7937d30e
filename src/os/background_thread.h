// Threads that work beside the training, and should not be in its way.
#pragma once

namespace ckptring::os {

/// For the calling thread, which is one of the library's own (own_thread.h): a name for top and
/// gdb, at most 15 characters, and that waking it up never pushes another thread off its core
/// before that one's time is over (SCHED_BATCH). So `save`, which wakes such a thread, returns
/// first even where all cores are busy. Never fails: where the system refuses, something is a
/// little slower.
void become_background_thread(const char* name) noexcept;

}  // namespace ckptring::os
