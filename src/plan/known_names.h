// The names of Python modules that have a meaning here. An allow-list: all others have none.
#pragma once

#include "plan/dtype.h"

#include <cstdint>
#include <string_view>

namespace ckptring::plan {

/// What a name in a Python module means here.
struct NameMeaning {
  enum class Kind : std::uint8_t {
    unknown,
    ordered_dict,
    rebuild_tensor_v2,
    rebuild_tensor_v3,
    rebuild_parameter,
    rebuild_parameter_with_state,
    rebuild_from_type,
    reconstructor,  ///< makes an object of any class
    size,
    tensor_class,
    untyped_storage,
    typed_storage,  ///< of `dtype`
    dtype,
    other_words,  ///< no counterpart; `words` say what a call of it makes
  };
  Kind kind = Kind::unknown;
  DType dtype{};
  std::string_view words;  ///< of static storage
};

NameMeaning meaning_of(std::string_view module, std::string_view name) noexcept;

}  // namespace ckptring::plan
