// What orders copies from devices after the work that produced the tensors.
#pragma once

#include "save/save_job.h"

namespace ckptring::save {

/// Copies of the job are begun, on each of its devices, once the device has come to the point that
/// was marked.
/// @throws Error device_failed naming the first tensor of the device
void follow_streams(const SaveJob& job, stage::DeviceCopies& copies);

}  // namespace ckptring::save
