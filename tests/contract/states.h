// States for tests, and comparing them bit for bit.
#pragma once

#include <ATen/Functions.h>
#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/core/ivalue.h>
#include <ckptring/state_dict.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::test {

using c10::IValue;

inline StateDict dict(std::initializer_list<std::pair<IValue, IValue>> entries) {
  StateDict made = make_state_dict();
  for (const auto& [key, value] : entries) made.insert_or_assign(key, value);
  return made;
}

inline IValue list(std::initializer_list<IValue> items) {
  auto made = make_state_list();
  for (const IValue& item : items) made.push_back(item);
  return made;
}

inline IValue tuple(std::initializer_list<IValue> items) {
  return c10::ivalue::Tuple::create(std::vector<IValue>(items));
}

/// Every bit pattern may occur: a tensor of this dtype filled with repeatable noise.
inline at::Tensor noise(c10::IntArrayRef sizes, c10::ScalarType type, std::uint64_t seed = 1) {
  at::Tensor made = at::empty(sizes, at::TensorOptions().dtype(type));
  auto* bytes = static_cast<std::uint8_t*>(made.mutable_data_ptr());
  for (std::size_t i = 0; i < made.nbytes(); ++i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    bytes[i] = static_cast<std::uint8_t>(seed >> 33);
    if (type == c10::kBool) bytes[i] &= 1;
  }
  return made;
}

/// The elements in index order as bytes, conj and neg bits resolved where they are set. They may be
/// on a device.
inline std::string bits(const at::Tensor& tensor) {
  at::Tensor plain = tensor.detach().cpu();
  if (plain.is_conj() || plain.is_neg()) plain = plain.resolve_conj().resolve_neg();
  const std::size_t item = plain.itemsize();
  std::string bytes;
  bytes.reserve(plain.nbytes());
  const auto* base = static_cast<const char*>(plain.const_data_ptr());
  std::vector<std::int64_t> index(static_cast<std::size_t>(plain.dim()), 0);
  for (std::int64_t i = 0; i < plain.numel(); ++i) {
    std::int64_t offset = 0;
    for (std::size_t d = 0; d < index.size(); ++d) {
      offset += index[d] * plain.stride(static_cast<std::int64_t>(d));
    }
    bytes.append(base + offset * static_cast<std::int64_t>(item), item);
    for (std::size_t d = index.size(); d-- > 0;) {
      if (++index[d] < plain.size(static_cast<std::int64_t>(d))) break;
      index[d] = 0;
    }
  }
  return bytes;
}

inline void expect_equal(const IValue& expected, const IValue& found, const std::string& where);

inline void expect_same_tensor(const at::Tensor& expected, const at::Tensor& found,
                               const std::string& where) {
  ASSERT_TRUE(found.defined()) << where;
  EXPECT_EQ(found.scalar_type(), expected.scalar_type()) << where;
  ASSERT_EQ(found.sizes(), expected.sizes()) << where;
  EXPECT_EQ(found.is_conj(), expected.is_conj()) << where;
  EXPECT_EQ(found.is_neg(), expected.is_neg()) << where;
  EXPECT_TRUE(bits(found) == bits(expected)) << where << ": values differ";
}

inline void expect_equal(c10::ArrayRef<IValue> expected, c10::ArrayRef<IValue> found,
                         const std::string& where) {
  ASSERT_EQ(found.size(), expected.size()) << where;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expect_equal(expected[i], found[i], where + "[" + std::to_string(i) + "]");
  }
}

inline void expect_equal(const StateDict& expected, const StateDict& found,
                         const std::string& where) {
  ASSERT_EQ(found.size(), expected.size()) << where;
  auto entry = found.begin();
  for (const auto& wanted : expected) {
    const IValue& key = wanted.key();
    const std::string name = key.isString() ? key.toStringRef() : std::to_string(key.toInt());
    EXPECT_EQ(key, entry->key()) << where << ": order of keys at " << name;
    std::string place = where;
    place.append(".").append(name);
    expect_equal(wanted.value(), entry->value(), place);
    ++entry;
  }
}

inline void expect_equal(const IValue& expected, const IValue& found, const std::string& where) {
  const bool nothing = expected.isNone() || (expected.isTensor() && !expected.toTensor().defined());
  if (nothing) {
    EXPECT_TRUE(found.isNone()) << where << " is a " << found.tagKind();
  } else if (expected.isTensor()) {
    ASSERT_TRUE(found.isTensor()) << where << " is a " << found.tagKind();
    expect_same_tensor(expected.toTensor(), found.toTensor(), where);
  } else if (expected.isDouble()) {
    ASSERT_TRUE(found.isDouble()) << where << " is a " << found.tagKind();
    EXPECT_EQ(std::bit_cast<std::uint64_t>(found.toDouble()),
              std::bit_cast<std::uint64_t>(expected.toDouble()))
        << where;
  } else if (expected.isGenericDict()) {
    ASSERT_TRUE(found.isGenericDict()) << where << " is a " << found.tagKind();
    expect_equal(expected.toGenericDict(), found.toGenericDict(), where);
  } else if (expected.isList()) {
    ASSERT_TRUE(found.isList()) << where << " is a " << found.tagKind();
    expect_equal(expected.toListRef(), found.toListRef(), where);
  } else if (expected.isTuple()) {
    ASSERT_TRUE(found.isTuple()) << where << " is a " << found.tagKind();
    expect_equal(c10::ArrayRef<IValue>(expected.toTupleRef().elements()),
                 c10::ArrayRef<IValue>(found.toTupleRef().elements()), where);
  } else {
    EXPECT_EQ(found.tagKind(), expected.tagKind()) << where;
    EXPECT_EQ(found, expected) << where;
  }
}

inline at::Tensor tensor_at(const StateDict& state, const std::string& key) {
  return state.at(key).toTensor();
}

/// A bit of everything that a state may hold; tensors of a few hundred KB in all.
inline StateDict sample_state(std::uint64_t seed = 1) {
  return dict({
      {"weight", noise({300, 257}, c10::kFloat, seed)},
      {"bias", noise({257}, c10::kDouble, seed + 1)},
      {"none", IValue()},
      {"nested", dict({{"step", std::int64_t{1} << 40},
                       {"rate", 1e-3},
                       {"on", true},
                       {"text", "Zoë saved ✓"},
                       {"list", list({1, noise({5}, c10::kLong, seed + 2), list({}), "x"})},
                       {"pair", tuple({0.9, 0.999})}})},
      {std::int64_t{0}, dict({{"exp_avg", noise({7, 3}, c10::kBFloat16, seed + 3)}})},
      {"last", noise({1}, c10::kByte, seed + 4)},
  });
}

}  // namespace ckptring::test
