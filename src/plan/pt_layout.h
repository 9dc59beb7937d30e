// Lays out a `.pt` archive.
#pragma once

#include "plan/file_plan.h"
#include "plan/format.h"
#include "plan/recording.h"

#include <cstddef>
#include <vector>

namespace ckptring::plan {

/// The file of a recorded state. Payloads come in the order of its storages.
///
/// `requires_grad` is kept except for tensors that stock torch can only read without it: those of a
/// dtype without a typed storage, of a storage viewed under two dtypes, or of one whose size is no
/// multiple of the element's.
/// @throws Error unsupported_value if a bound of the format is exceeded (docs/FORMAT.md, Limits),
///         naming the key where it is a value's; or for metadata that are not UTF-8
/// @param scratch  memory to work in, and then for the next one; null: none is kept
[[nodiscard]] FilePlan lay_out_pt(const Recording& state, const FileFacts& facts,
                                  std::vector<std::byte>* scratch = nullptr);

}  // namespace ckptring::plan
