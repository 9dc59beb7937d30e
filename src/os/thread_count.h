// How many threads share out work of the processor, where a setting may say so.
#pragma once

namespace ckptring::os {

/// `asked`; if that is 0, one for each `cores_each` cores of this process, 1 to 8: more than that
/// gain nothing on memory that all cores share. `setting` is its name, for the error.
/// @throws Error invalid_argument for more than 256
[[nodiscard]] unsigned thread_count(const char* setting, unsigned asked, unsigned cores_each);

}  // namespace ckptring::os
