// Takes a state down in one pass, value by value: what a format lays out as a file.
#pragma once

#include "plan/dtype.h"
#include "plan/identity_table.h"
#include "plan/key_tree.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// A tensor as a view of a storage. Offsets, sizes and strides count elements.
struct TensorView {
  DType dtype;
  std::uint32_t storage;  ///< what StateRecorder::storage gave
  std::int64_t offset;
  std::span<const std::int64_t> sizes;
  std::span<const std::int64_t> strides;
  bool requires_grad = false;
  bool conj = false;
  bool neg = false;
};

/// The walker calls in the order of the state: `begin_dict`, then `key` and a value for each item,
/// `end_dict`; lists and tuples alike, without keys. A value is a container, a tensor (after the
/// `storage` that it views), a number, a string or None. The whole is one value, mostly a dict.
///
/// Knows no tensor library and no format. Every error names the key where the walker is. One
/// thread at a time.
class StateRecorder {
 public:
  using Node = KeyTree::Node;

  /// @param operation, path  for messages: "save", "run/step_100". Without a path they say the
  ///                         operation only
  explicit StateRecorder(std::string operation = "save", std::string path = {});

  /// The storage that `identity` names: the same number for the same one, counted from 0, and also
  /// `Payload::source`.
  /// @param bytes     its size when it is met first, which counts
  /// @param location  the device as torch writes it: "cpu", "cuda:0"
  /// @throws Error unsupported_value for more than 4 billion
  std::uint32_t storage(const void* identity, std::uint64_t bytes, std::string_view location);

  void begin_dict() { begin(Step::Kind::begin_dict); }
  void end_dict() { end(Step::Kind::end_dict); }
  void begin_list() { begin(Step::Kind::begin_list); }
  void end_list() { end(Step::Kind::end_list); }
  void begin_tuple() { begin(Step::Kind::begin_tuple); }
  void end_tuple() { end(Step::Kind::end_tuple); }

  /// The key of the next value.
  /// @throws Error unsupported_value if it is no UTF-8, or longer than 4 GiB
  void key(std::string_view text);
  void key(std::int64_t number);

  void none() { push(Step::Kind::none, 0); }
  void boolean(bool value) { push(Step::Kind::boolean, value ? 1 : 0); }
  void integer(std::int64_t value) { push(Step::Kind::integer, value); }
  void real(double value);
  /// @throws Error unsupported_value as `key`
  void string(std::string_view text);
  /// @return its place
  /// @throws Error unsupported_value if its elements do not lie in the storage, or it could not be
  ///         read again
  Node tensor(const TensorView& view);

  /// The place of the value that is recorded next.
  Node place();
  /// In words.
  [[nodiscard]] std::string path_of(Node node) const { return keys_.path(node); }

  /// The value that comes next cannot be stored.
  /// @throws Error unsupported_value that names its key
  [[noreturn]] void refuse(std::string cause) const;
  /// The container that is open cannot.
  [[noreturn]] void refuse_open(std::string cause) const;
  /// A value that was recorded cannot.
  [[noreturn]] void refuse_at(Node node, std::string cause) const;
  /// What messages begin with: "save key a.b[0] to".
  [[nodiscard]] std::string operation_on(const std::string& key) const;
  /// The same of the value that comes next.
  [[nodiscard]] std::string operation_here() const { return operation_on(path_here()); }

  /// Makes room for the items of one container, which are mostly tensors: growing by doubling
  /// alone would fault in twice the memory.
  void expect(std::size_t items);

  // What was recorded.

  struct Storage {
    std::uint64_t bytes;
    std::uint64_t dtypes = 0;  ///< a bit for each DType that views it
    std::uint32_t location;    ///< index
    std::uint32_t views = 0;
    Node first;  ///< the place of its first tensor
  };
  [[nodiscard]] std::span<const Storage> storages() const noexcept { return storages_; }
  [[nodiscard]] const std::string& location(const Storage& storage) const {
    return locations_[storage.location];
  }
  [[nodiscard]] std::size_t tensors() const noexcept { return tensors_.size(); }

  /// Calls `to` as this was called: begin_dict(), end_dict(Node), key(text), key(number), none()
  /// ..., tensor(TensorView).
  /// @throws Error internal if the state is not complete
  template <class To>
  void replay(To&& to) const;

  /// Ends the recording, and lets go of all but the storages and the places.
  void forget_values();

 private:
  struct Step {
    enum class Kind : std::uint8_t {
      begin_dict,
      end_dict,
      begin_list,
      end_list,
      begin_tuple,
      end_tuple,
      key_text,
      key_number,
      none,
      boolean,
      integer,
      real,
      text,
      tensor,
    };
    Kind kind;
    std::uint32_t length = 0;  ///< of a text, in bytes
    union {
      std::int64_t integer;  ///< integer, key_number; index into tensors; node of a dict that ends
      double real;
      std::uint64_t text;  ///< where `keys_` keeps it
    };
  };

  /// A tensor as its walker wants it back, copied: reading it again would be waiting for memory
  /// again.
  struct Tensor {
    std::int64_t offset;
    std::uint32_t storage;
    std::uint32_t dimensions;
    DType dtype;
    bool requires_grad : 1;
    bool conj : 1;
    bool neg : 1;
  };
  static_assert(sizeof(Tensor) == 24);

  struct Open {
    Step::Kind end;
    Node node;
    std::size_t items = 0;  ///< of a list or tuple
  };

  void begin(Step::Kind kind);
  void end(Step::Kind kind);
  void push(Step::Kind kind, std::int64_t value);
  void push_text(Step::Kind kind, std::string_view text);
  void value();
  Node add_place();
  void require_key_wanted() const;
  [[nodiscard]] KeyStep step() const;
  [[nodiscard]] std::string path_here() const;
  [[noreturn]] void refuse_key(std::string_view text, std::string cause) const;
  [[nodiscard]] std::string_view text_of(const Step& step) const {
    return keys_.kept(static_cast<std::size_t>(step.text), step.length);
  }
  /// @param first_size  index of its first size in `shapes_`
  [[nodiscard]] TensorView view_of(const Tensor& tensor, std::size_t first_size) const;
  void require_complete() const;

  std::string operation_;
  std::string path_;
  KeyTree keys_;
  std::vector<Open> open_;  ///< the innermost last
  bool has_key_ = false;    ///< of a dict's next value: it is the last step
  bool is_complete_ = false;
  Node placed_ = KeyTree::kRoot;  ///< the next value's, if it was asked for
  bool is_placed_ = false;

  std::vector<Step> steps_;
  std::vector<Tensor> tensors_;
  std::vector<std::int64_t> shapes_;  ///< of each tensor its sizes, then its strides
  IdentityTable numbers_;
  std::vector<Storage> storages_;
  std::vector<std::string> locations_;
};

template <class To>
void StateRecorder::replay(To&& to) const {
  require_complete();
  using Kind = Step::Kind;
  std::size_t shape = 0;
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::begin_dict:
        to.begin_dict();
        break;
      case Kind::end_dict:
        to.end_dict(static_cast<Node>(step.integer));
        break;
      case Kind::begin_list:
        to.begin_list();
        break;
      case Kind::end_list:
        to.end_list();
        break;
      case Kind::begin_tuple:
        to.begin_tuple();
        break;
      case Kind::end_tuple:
        to.end_tuple();
        break;
      case Kind::key_text:
        to.key(text_of(step));
        break;
      case Kind::key_number:
        to.key(step.integer);
        break;
      case Kind::none:
        to.none();
        break;
      case Kind::boolean:
        to.boolean(step.integer != 0);
        break;
      case Kind::integer:
        to.integer(step.integer);
        break;
      case Kind::real:
        to.real(step.real);
        break;
      case Kind::text:
        to.string(text_of(step));
        break;
      case Kind::tensor: {
        const Tensor& tensor = tensors_[static_cast<std::size_t>(step.integer)];
        to.tensor(view_of(tensor, shape));
        shape += std::size_t{2} * tensor.dimensions;
      }
    }
  }
}

}  // namespace ckptring::plan
