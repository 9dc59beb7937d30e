#include "plan/dtype.h"

#include <array>

namespace ckptring::plan {
namespace {

struct Row {
  std::string_view name;
  std::string_view typed_storage;
  std::uint32_t size;
};

// In the order of the enumeration.
constexpr std::array<Row, kDTypeCount> kRows = {{
    {"uint8", "ByteStorage", 1},
    {"int8", "CharStorage", 1},
    {"int16", "ShortStorage", 2},
    {"int32", "IntStorage", 4},
    {"int64", "LongStorage", 8},
    {"uint16", "", 2},
    {"uint32", "", 4},
    {"uint64", "", 8},
    {"float16", "HalfStorage", 2},
    {"bfloat16", "BFloat16Storage", 2},
    {"float32", "FloatStorage", 4},
    {"float64", "DoubleStorage", 8},
    {"float8_e4m3fn", "", 1},
    {"float8_e4m3fnuz", "", 1},
    {"float8_e5m2", "", 1},
    {"float8_e5m2fnuz", "", 1},
    {"float8_e8m0fnu", "", 1},
    {"bool", "BoolStorage", 1},
    {"complex32", "", 4},
    {"complex64", "ComplexFloatStorage", 8},
    {"complex128", "ComplexDoubleStorage", 16},
    {"bcomplex32", "", 4},
    {"float4_e2m1fn_x2", "", 1},
    {"bits1x8", "", 1},
    {"bits2x4", "", 1},
    {"bits4x2", "", 1},
    {"bits8", "", 1},
    {"bits16", "", 2},
    {"uint1", "", 1},
    {"uint2", "", 1},
    {"uint3", "", 1},
    {"uint4", "", 1},
    {"uint5", "", 1},
    {"uint6", "", 1},
    {"uint7", "", 1},
    {"int1", "", 1},
    {"int2", "", 1},
    {"int3", "", 1},
    {"int4", "", 1},
    {"int5", "", 1},
    {"int6", "", 1},
    {"int7", "", 1},
}};

constexpr const Row& row(DType dtype) noexcept { return kRows[static_cast<std::size_t>(dtype)]; }
static_assert(row(DType::complex128).name == "complex128");
static_assert(row(DType::float16).name == "float16");
static_assert(row(DType::int7).name == "int7");

}  // namespace

bool is_complex(DType dtype) noexcept {
  return dtype == DType::complex32 || dtype == DType::complex64 || dtype == DType::complex128 ||
         dtype == DType::bcomplex32;
}

bool is_floating(DType dtype) noexcept {
  return name(dtype).starts_with("float") || name(dtype) == "bfloat16";
}

std::string_view name(DType dtype) noexcept { return row(dtype).name; }

std::optional<DType> dtype_from_name(std::string_view name) noexcept {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::string_view typed_storage_name(DType dtype) noexcept { return row(dtype).typed_storage; }

std::optional<DType> dtype_from_typed_storage(std::string_view name) noexcept {
  if (name.empty()) return std::nullopt;
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].typed_storage == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace ckptring::plan

namespace ckptring {

std::uint32_t element_size(DType dtype) noexcept { return plan::row(dtype).size; }

}  // namespace ckptring
