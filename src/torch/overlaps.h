// Tensors of a state that lie in the same memory, as tied weights do and views of one storage, or
// one whose own elements do: a file may have different values for them.
#pragma once

#include "torch/fill_plan.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ckptring::torch_state {

/// Fills of the same memory, in part at least, which come from different places of the file. Or one
/// that writes some of its memory more than once.
struct Overlap {
  struct Part {
    const plan::Record* record;
    std::vector<const Fill*> fills;
  };
  std::vector<Part> parts;  ///< in the order of the file

  /// One of them, to name it.
  [[nodiscard]] const Fill& front() const { return *parts.front().fills.front(); }
};

/// Tensors without addresses are left out. The fills have to stay where they are.
std::vector<Overlap> find_overlaps(const std::vector<RecordFills>& records);

/// Why the fills of an overlap cannot all be done.
struct Contradiction {
  /// The one that wrote first where both differ. `fill` itself, if its own elements contradict each
  /// other. Null, if there was too much to compare.
  const Fill* earlier;
  /// The one to blame: it would change what was written. Where there was too much to compare, one
  /// of those that made it so much.
  const Fill* fill;

  /// @param source "the file" or "the state"
  /// @param earlier_key the key of `earlier`, if there is one
  [[nodiscard]] std::string words(const std::string& source, const std::string& earlier_key) const;
};

/// Nothing if all fills have the same for the same memory. `read` fills tensors in host memory that
/// are made for this, of bytes or of the target's dtype.
///
/// Takes as much memory as the overlap, and in addition as the largest of its records or tensors.
/// What it reads is a limited multiple of the overlap and its records, whatever the tensors'
/// shapes.
/// @throws std::bad_alloc
std::optional<Contradiction> contradiction(const Overlap& overlap,
                                           const std::function<void(RecordFills&)>& read);

}  // namespace ckptring::torch_state
