// Element types that a checkpoint can hold, without torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ckptring::plan {

/// Named as in PyTorch.
enum class DType : std::uint8_t {
  uint8,
  int8,
  int16,
  int32,
  int64,
  uint16,
  uint32,
  uint64,
  float16,
  bfloat16,
  float32,
  float64,
  float8_e4m3fn,
  float8_e4m3fnuz,
  float8_e5m2,
  float8_e5m2fnuz,
  float8_e8m0fnu,
  boolean,
  complex32,
  complex64,
  complex128,
  bcomplex32,
  float4_e2m1fn_x2,
  bits1x8,
  bits2x4,
  bits4x2,
  bits8,
  bits16,
  uint1,
  uint2,
  uint3,
  uint4,
  uint5,
  uint6,
  uint7,
  int1,
  int2,
  int3,
  int4,
  int5,
  int6,
  int7,
};

inline constexpr std::size_t kDTypeCount = 42;

/// Bytes per element. Elements of less than a byte take one each.
std::uint32_t element_size(DType dtype) noexcept;

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
