// What kind of element a DType is, and its names.
#pragma once

#include <ckptring/dtype.h>

#include <optional>
#include <string_view>

namespace ckptring::plan {

using ckptring::DType;
using ckptring::element_size;
using ckptring::kDTypeCount;

bool is_complex(DType dtype) noexcept;
/// Of any width; not complex.
bool is_floating(DType dtype) noexcept;

/// As in `torch.float32`, without "torch.".
std::string_view name(DType dtype) noexcept;
std::optional<DType> dtype_from_name(std::string_view name) noexcept;

/// "FloatStorage" and so on for dtypes that old pickles store as a typed storage; empty for
/// those that need a v3 tensor: every dtype that is younger than typed storages.
std::string_view typed_storage_name(DType dtype) noexcept;
std::optional<DType> dtype_from_typed_storage(std::string_view name) noexcept;

}  // namespace ckptring::plan
