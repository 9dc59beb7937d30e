// What a pickle's program makes: tables of plain items, and nothing else. An opcode of a byte costs
// some twenty bytes here, whatever it makes, so that a file cannot take more memory than a small
// multiple of its own size.
#pragma once

#include "plan/dtype.h"
#include "plan/known_names.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// One value in eight bytes: itself, or an index into one of the tables of PickleObjects.
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
  std::uint32_t index = 0;  ///< a boolean: itself

  [[nodiscard]] bool is(Kind other) const noexcept { return kind == other; }
  [[nodiscard]] bool boolean() const noexcept { return index != 0; }
};

/// The tables grow without moving what is in them: a vector would hold three times as much while
/// it grows. Texts are places in the pickle.
struct PickleObjects {
  using Kind = PickleItem::Kind;

  struct Text {
    std::uint32_t begin;
    std::uint32_t length;
  };
  /// A run of `items`.
  struct Range {
    std::uint32_t begin = 0;
    std::uint32_t count = 0;
  };
  struct Tuple {
    Range range;
    bool integers = false;  ///< known to hold nothing else
  };
  /// What was put into a list or dict in one go.
  struct Segment {
    Range range;
    std::uint32_t next = 0;  ///< counted from 1; 0: none
  };
  /// A list, or a dict: key, value, key, value, ...
  struct Container {
    std::uint32_t first = 0;  ///< segment, counted from 1; 0: empty
    std::uint32_t last = 0;
  };
  struct Global {
    NameMeaning meaning;
    Text module;
    Text name;
  };
  struct Storage {
    std::uint64_t bytes = 0;
    std::uint32_t key = 0;       ///< string
    std::uint32_t location = 0;  ///< string
    std::optional<DType> dtype;  ///< none: untyped
  };
  struct Tensor {
    std::int64_t offset = 0;
    std::uint32_t storage = 0;
    std::uint32_t sizes = 0;    ///< a tuple of integers
    std::uint32_t strides = 0;  ///< a tuple of integers
    DType dtype{};
    bool requires_grad = false;
    bool conj = false;
    bool neg = false;
    bool has_state = false;  ///< Python attributes that have no counterpart
  };
  /// In words, as the end of "this is ...": the words, then the global's name.
  struct Unsupported {
    std::string_view words;               ///< of static storage
    std::optional<std::uint32_t> global;  ///< index
  };

  std::vector<std::byte> pickle;
  std::deque<Text> strings;
  std::deque<std::int64_t> integers;
  std::deque<double> reals;
  std::deque<PickleItem> items;
  std::deque<Tuple> tuples;
  std::deque<Segment> segments;
  std::deque<Container> lists;
  std::deque<Container> dicts;
  std::deque<Tensor> tensors;
  std::deque<Storage> storages;
  std::deque<Global> globals;
  std::deque<Unsupported> unsupported;

  [[nodiscard]] std::string_view text(Text place) const noexcept {
    return {reinterpret_cast<const char*>(pickle.data()) + place.begin, place.length};
  }
  [[nodiscard]] std::string_view string(std::uint32_t index) const { return text(strings[index]); }
  [[nodiscard]] Range items_of_tuple(const PickleItem& tuple) const {
    return tuples[tuple.index].range;
  }

  /// Calls `visit(item)` for all items of a list or dict, in their order.
  template <class Visit>
  void for_each(const Container& container, Visit&& visit) const {
    for (std::uint32_t at = container.first; at != 0; at = segments[at - 1].next) {
      const Range range = segments[at - 1].range;
      for (std::uint32_t i = 0; i < range.count; ++i) visit(items[range.begin + i]);
    }
  }

  /// The name in words, cut off where it is too long for a message.
  [[nodiscard]] std::string qualified(const Global& global) const;
  /// The item in words, as the end of "this is ...".
  [[nodiscard]] std::string describe(const PickleItem& item) const;
};

}  // namespace ckptring::plan
