// Tells a save the state that a StateDict is.
#pragma once

#include <ckptring/saver.h>
#include <ckptring/torch/state_dict.h>

#include <string>

namespace ckptring::torch_state {

/// Records `state`, which is looked at when this is called and has to be there until then. Keeps
/// its storages alive until the save is staged, and tells of a tensor whose version counter rose
/// since, or whose storage has other memory. Parts of it may be on CUDA devices, as produced on the
/// calling thread's current streams.
///
/// It throws Error unsupported_value naming the key, and out_of_memory.
/// @param path  for messages; without one it is `prepare`'s
[[nodiscard]] Saver::Record recorder_of(const StateDict& state, const std::string& path);

}  // namespace ckptring::torch_state
