// Element types that a checkpoint can hold. Read next: state_recorder.h.
#pragma once

#include <ckptring/export.h>

#include <cstddef>
#include <cstdint>

namespace ckptring {

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
CKPTRING_API std::uint32_t element_size(DType dtype) noexcept;

}  // namespace ckptring
