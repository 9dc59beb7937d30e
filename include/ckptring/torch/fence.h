// A save's fence on a stream of libtorch's.
#pragma once

#include <ckptring/export.h>
#include <ckptring/save_handle.h>

#include <c10/core/Stream.h>

namespace ckptring {

/// What `save.fence(stream)` calls.
/// @throws Error as SaveHandle::fence; invalid_argument for a stream of another kind of device
CKPTRING_API void fence_stream(const SaveHandle& save, const c10::Stream& stream);

}  // namespace ckptring
