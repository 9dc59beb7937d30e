// Tensors of a state that lie in the same memory, as tied weights do and views of one storage: a
// file may have different values for them.
#pragma once

#include "torch/fill_plan.h"

#include <functional>
#include <optional>
#include <utility>
#include <vector>

namespace ckptring::torch_state {

/// Fills of the same memory, in part at least, which come from different places of the file.
struct Overlap {
  struct Part {
    const plan::Record* record;
    std::vector<const Fill*> fills;
  };
  std::vector<Part> parts;  ///< in the order of the file
};

/// Tensors without addresses are left out. The fills have to stay where they are.
std::vector<Overlap> find_overlaps(const std::vector<RecordFills>& records);

/// Two fills of which one would change what the other has written; nothing if they have the same
/// for the same memory. `read` fills tensors that are made for this, which takes as much memory as
/// the overlap and its tensors.
std::optional<std::pair<const Fill*, const Fill*>> contradiction(
    const Overlap& overlap, const std::function<void(RecordFills&)>& read);

}  // namespace ckptring::torch_state
