// What a pickle holds, without torch: the result of reading `data.pkl`.
#pragma once

#include "plan/dtype.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::plan {

struct Value;

struct None {};

/// Something that the file holds and we have no counterpart for (bytes, a set, a big int, a
/// custom class). An error only if it is asked for.
struct Unsupported {
  std::string what;  ///< in words, e.g. "an object of class foo.Bar"
};

struct Tensor {
  DType dtype;
  std::string storage_key;      ///< record data/{key}
  std::uint64_t storage_bytes;  ///< as the pickle states it; PtArchive: size of the record
  std::string location;         ///< "cpu", "cuda:0"
  std::int64_t offset = 0;      ///< elements
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;  ///< elements
  bool requires_grad = false;
  bool conj = false;
  bool neg = false;
};

struct List {
  std::vector<Value> items;
};
struct Tuple {
  std::vector<Value> items;
};
/// Insertion order. No key comes twice: as in Python, the last of equal keys gives the value and
/// the first the place.
struct Dict {
  using Key = std::variant<std::string, std::int64_t>;
  std::vector<std::pair<Key, Value>> items;
};

/// Containers may be shared in the pickle (memo), hence the shared pointers. Never cyclic, and at
/// most kMaxDepth (pickle_opcodes.h) levels deep. Sharing lets a small file describe a huge tree,
/// so the reader refuses values that a walk which follows every reference would visit more than
/// 16 million + 16 times per byte of the pickle: a recursive walk over a Value is safe.
struct Value {
  std::variant<None, bool, std::int64_t, double, std::string, Tensor, std::shared_ptr<List>,
               std::shared_ptr<Tuple>, std::shared_ptr<Dict>, Unsupported>
      data;
};

}  // namespace ckptring::plan
