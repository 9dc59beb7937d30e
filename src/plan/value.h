// What a pickle holds, without torch: the result of reading `data.pkl`.
#pragma once

#include "plan/dtype.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::plan {

struct CheckedPickle;  // checked_pickle.h
struct Value;

struct None {};

/// Something that the file holds and we have no counterpart for (bytes, a set, a big int, a
/// custom class). An error only if it is asked for.
struct Unsupported {
  std::string what;  ///< in words, e.g. "an object of class foo.Bar"
};

/// The same string of the pickle has one number however often it is referred to; strings of equal
/// text may have several.
struct String {
  std::string_view text;
  std::uint32_t id;
};

/// Values are views of a Document, as small as a pointer and a number; making one copies nothing.
class Tensor {
 public:
  Tensor(const CheckedPickle& pickle, std::uint32_t index) noexcept
      : pickle_(&pickle), index_(index) {}

  [[nodiscard]] std::uint32_t id() const noexcept { return index_; }  ///< of the same object
  [[nodiscard]] DType dtype() const;
  [[nodiscard]] std::string_view storage_key() const;  ///< record data/{key}
  [[nodiscard]] std::size_t record() const;            ///< index, as FindRecord gave it
  [[nodiscard]] std::uint64_t storage_bytes() const;   ///< size of that record
  [[nodiscard]] std::string_view location() const;     ///< "cpu", "cuda:0"
  [[nodiscard]] std::int64_t offset() const;           ///< elements
  [[nodiscard]] std::size_t dimensions() const;
  [[nodiscard]] std::vector<std::int64_t> sizes() const;
  [[nodiscard]] std::vector<std::int64_t> strides() const;  ///< elements
  [[nodiscard]] bool requires_grad() const;
  [[nodiscard]] bool conj() const;
  [[nodiscard]] bool neg() const;

 private:
  const CheckedPickle* pickle_;
  std::uint32_t index_;
};

/// What List, Tuple and Dict have in common. Containers may be shared in the pickle (memo): then
/// they have the same number, which no other container of the document has. Never cyclic, and at
/// most kMaxDepth (pickle_opcodes.h) levels deep. Sharing lets a small file describe a huge tree,
/// so the reader refuses values that a walk which follows every reference would visit more than
/// 16 million + 16 times per byte of the pickle; 64 bytes of a string or of a key, and 8 dimensions
/// of a tensor, count as one more visit.
class Container {
 public:
  Container(const CheckedPickle& pickle, std::uint32_t index, std::uint32_t id, std::uint32_t begin,
            std::uint32_t count) noexcept
      : pickle_(&pickle), index_(index), id_(id), begin_(begin), count_(count) {}
  [[nodiscard]] std::uint32_t id() const noexcept { return id_; }

 protected:
  const CheckedPickle* pickle_;
  std::uint32_t index_;  ///< among the containers of its kind
  std::uint32_t id_;
  std::uint32_t begin_;  ///< of its items in the table
  std::uint32_t count_;
};

class Sequence : public Container {
 public:
  using Container::Container;
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] Value operator[](std::size_t index) const;
};
class List : public Sequence {
 public:
  using Sequence::Sequence;
};
class Tuple : public Sequence {
 public:
  using Sequence::Sequence;
};

/// Python's keys that have no counterpart.
struct OtherKey {
  std::string words;  ///< "True", "1.5", "a tuple", "a string that is not UTF-8"
};

/// Insertion order. No string and no int comes twice as a key: as in Python, the last of equal keys
/// gives the value and the first the place. Keys without a counterpart are the same only where the
/// pickle refers to one object: two of equal value, which are one key to Python, are two here.
class Dict : public Container {
 public:
  using Container::Container;
  using Key = std::variant<String, std::int64_t, OtherKey>;

  [[nodiscard]] std::size_t size() const noexcept { return count_ / 2; }
  [[nodiscard]] Key key(std::size_t index) const;
  [[nodiscard]] Value value(std::size_t index) const;
  /// By halving, so that no choice of keys makes it slow.
  [[nodiscard]] std::optional<Value> find(std::string_view text) const;
  [[nodiscard]] std::optional<Value> find(std::int64_t number) const;

 private:
  template <class Order>
  [[nodiscard]] std::optional<Value> search(Order&& order) const;
};

struct Value {
  std::variant<None, bool, std::int64_t, double, String, Tensor, List, Tuple, Dict, Unsupported>
      data;
};

/// All that one pickle holds. Its values are valid as long as it lives.
class Document {
 public:
  explicit Document(CheckedPickle pickle);
  ~Document();
  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;

  [[nodiscard]] Value root() const;

  /// One more than the largest number of a string.
  [[nodiscard]] std::size_t strings() const noexcept;
  /// One more than the largest number of a container.
  [[nodiscard]] std::size_t containers() const noexcept;
  /// One more than the largest number of a tensor.
  [[nodiscard]] std::size_t tensors() const noexcept;

  /// Bytes that its values take as libtorch's objects, about, without their elements: see
  /// value_memory.h.
  [[nodiscard]] std::uint64_t value_bytes() const noexcept;

 private:
  std::unique_ptr<const CheckedPickle> pickle_;
};

}  // namespace ckptring::plan
