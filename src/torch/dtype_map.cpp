#include "torch/dtype_map.h"

#include <array>
#include <cstddef>
#include <utility>

namespace ckptring::torch_state {
namespace {

using c10::ScalarType;
using plan::DType;

constexpr std::array<std::pair<DType, ScalarType>, plan::kDTypeCount> kPairs{{
    {DType::uint8, ScalarType::Byte},
    {DType::int8, ScalarType::Char},
    {DType::int16, ScalarType::Short},
    {DType::int32, ScalarType::Int},
    {DType::int64, ScalarType::Long},
    {DType::uint16, ScalarType::UInt16},
    {DType::uint32, ScalarType::UInt32},
    {DType::uint64, ScalarType::UInt64},
    {DType::float16, ScalarType::Half},
    {DType::bfloat16, ScalarType::BFloat16},
    {DType::float32, ScalarType::Float},
    {DType::float64, ScalarType::Double},
    {DType::float8_e4m3fn, ScalarType::Float8_e4m3fn},
    {DType::float8_e4m3fnuz, ScalarType::Float8_e4m3fnuz},
    {DType::float8_e5m2, ScalarType::Float8_e5m2},
    {DType::float8_e5m2fnuz, ScalarType::Float8_e5m2fnuz},
    {DType::float8_e8m0fnu, ScalarType::Float8_e8m0fnu},
    {DType::boolean, ScalarType::Bool},
    {DType::complex32, ScalarType::ComplexHalf},
    {DType::complex64, ScalarType::ComplexFloat},
    {DType::complex128, ScalarType::ComplexDouble},
    {DType::bcomplex32, ScalarType::BComplex32},
    {DType::float4_e2m1fn_x2, ScalarType::Float4_e2m1fn_x2},
    {DType::bits1x8, ScalarType::Bits1x8},
    {DType::bits2x4, ScalarType::Bits2x4},
    {DType::bits4x2, ScalarType::Bits4x2},
    {DType::bits8, ScalarType::Bits8},
    {DType::bits16, ScalarType::Bits16},
    {DType::uint1, ScalarType::UInt1},
    {DType::uint2, ScalarType::UInt2},
    {DType::uint3, ScalarType::UInt3},
    {DType::uint4, ScalarType::UInt4},
    {DType::uint5, ScalarType::UInt5},
    {DType::uint6, ScalarType::UInt6},
    {DType::uint7, ScalarType::UInt7},
    {DType::int1, ScalarType::Int1},
    {DType::int2, ScalarType::Int2},
    {DType::int3, ScalarType::Int3},
    {DType::int4, ScalarType::Int4},
    {DType::int5, ScalarType::Int5},
    {DType::int6, ScalarType::Int6},
    {DType::int7, ScalarType::Int7},
}};

// Both directions are looked up for every tensor, so they are tables indexed by the enumerators.
constexpr std::size_t kScalarTypes = static_cast<std::size_t>(ScalarType::NumOptions);

constexpr auto kByDType = [] {
  std::array<ScalarType, kPairs.size()> table{};
  for (const auto& [dtype, type] : kPairs) table[static_cast<std::size_t>(dtype)] = type;
  return table;
}();

constexpr auto kByScalarType = [] {
  std::array<std::optional<DType>, kScalarTypes> table{};
  for (const auto& [dtype, type] : kPairs) table[static_cast<std::size_t>(type)] = dtype;
  return table;
}();

}  // namespace

std::optional<DType> to_dtype(ScalarType type) noexcept {
  const auto index = static_cast<std::size_t>(type);
  return index < kScalarTypes ? kByScalarType[index] : std::nullopt;
}

ScalarType to_scalar_type(DType dtype) noexcept {
  return kByDType[static_cast<std::size_t>(dtype)];
}

}  // namespace ckptring::torch_state
