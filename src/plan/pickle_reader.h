// Reads a pickle as torch.save writes it. An allow-list: nothing is imported or called, known
// names have a meaning here and everything else becomes Unsupported.
#pragma once

#include "plan/value.h"

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>

namespace ckptring::plan {

/// Looks at a tensor that was found; may correct it. Returns what is wrong with it, in words.
using TensorCheck = std::function<std::optional<std::string>(Tensor&)>;

/// Protocols up to 2. Memory taken is bounded by a small multiple of `pickle`, and so is the work
/// of a recursive walk over the result, though containers may be shared (see value.h).
/// @param path  of the file, for error messages
/// @param check called for each tensor of the result
/// @throws Error damaged (naming the byte or the key), unsupported_value (a newer protocol)
Value read_pickle(std::span<const std::byte> pickle, const std::string& path,
                  const TensorCheck& check);

}  // namespace ckptring::plan
