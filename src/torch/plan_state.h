// From a StateDict to a job for the sync or the async path: StateDict -> survey -> FilePlan.
#pragma once

#include "save/save_job.h"
#include "stage/device_access.h"

#include <ckptring/torch/checkpointer.h>

#include <string>

namespace ckptring::torch_state {

/// @throws Error invalid_argument for a path that can never be saved to
void check_save_path(const std::string& path);

/// Lays out the file and collects what is to be copied into it. Copies no payload. The job keeps
/// the storages alive, and its `check_unchanged` names a tensor whose version counter rose since,
/// or whose storage has other memory. `path` is for messages and for the job; without one it is
/// `prepare`'s. Parts of the state may be on CUDA devices, if `devices` has any.
/// @throws Error unsupported_value naming the key, or for metadata that are too large;
/// device_failed
///         naming a key; invalid_argument for metadata that are not UTF-8, and, naming a key, while
///         the current stream of a device is being captured into a CUDA graph; out_of_memory
save::SaveJob plan_state(const std::string& path, const StateDict& state,
                         const SaveOptions& options, const RankInfo& rank,
                         stage::DeviceAccess& devices);

}  // namespace ckptring::torch_state
