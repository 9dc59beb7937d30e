// The stack machine that a pickle is a program for. It runs into tables of plain items; nothing
// is imported or called. Turning the tables into a Value is pickle_reader's part.
#pragma once

#include "plan/dtype.h"
#include "plan/pickle_opcodes.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// One value on the stack: itself, or an index into one of the tables of PickleObjects.
struct PickleItem {
  enum class Kind : std::uint8_t {
    absent,  ///< only as a memo entry that was never set
    none,
    boolean,
    integer,
    real,
    string,
    tuple,
    list,
    dict,
    tensor,
    storage,
    global,
    unsupported,
  };
  Kind kind = Kind::absent;
  std::uint64_t bits = 0;

  [[nodiscard]] bool is(Kind other) const noexcept { return kind == other; }
  [[nodiscard]] bool boolean() const noexcept { return bits != 0; }
  [[nodiscard]] std::int64_t integer() const noexcept { return std::bit_cast<std::int64_t>(bits); }
  [[nodiscard]] double real() const noexcept { return std::bit_cast<double>(bits); }
  [[nodiscard]] std::size_t index() const noexcept { return bits; }
};

/// A name in a Python module, and what it means here.
struct PickleGlobal {
  enum class Meaning : std::uint8_t {
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
  Meaning meaning = Meaning::unknown;
  DType dtype{};
  std::string_view module;
  std::string_view name;
  std::string_view words;
};

struct PickleStorage {
  std::optional<DType> dtype;  ///< none: untyped
  std::string_view key;
  std::string_view location;
  std::uint64_t bytes = 0;
};

struct PickleTensor {
  std::size_t storage = 0;  ///< index
  DType dtype{};
  std::int64_t offset = 0;
  PickleItem sizes;    ///< a tuple of integers
  PickleItem strides;  ///< a tuple of integers
  bool requires_grad = false;
  bool conj = false;
  bool neg = false;
  bool has_state = false;  ///< Python attributes that have no counterpart
};

/// The tables. Texts point into the pickle.
struct PickleObjects {
  struct Range {
    std::size_t begin;
    std::size_t count;
  };
  std::vector<std::string_view> strings;
  std::vector<Range> tuples;
  std::vector<PickleItem> tuple_items;
  std::vector<std::vector<PickleItem>> lists;
  std::vector<std::vector<PickleItem>> dicts;  ///< key, value, key, value, ...
  std::vector<PickleTensor> tensors;
  std::vector<PickleStorage> storages;
  std::vector<PickleGlobal> globals;
  std::vector<std::string> unsupported;  ///< in words

  [[nodiscard]] std::span<const PickleItem> items(const PickleItem& tuple) const {
    const Range& range = tuples[tuple.index()];
    return std::span(tuple_items).subspan(range.begin, range.count);
  }
  /// The item in words, as the end of "this is ...".
  [[nodiscard]] std::string describe(const PickleItem& item) const;
};

struct PickleProgram {
  PickleObjects objects;
  PickleItem root;
};

/// @param pickle must outlive the result
/// @throws Error damaged (naming the byte), unsupported_value (a newer protocol)
PickleProgram run_pickle(std::span<const std::byte> pickle, const std::string& path);

}  // namespace ckptring::plan
