// What a StateRecorder has taken down: what a format lays out as a file.
#pragma once

#include "plan/dtype.h"
#include "plan/identity_table.h"
#include "plan/key_tree.h"

#include <ckptring/state_recorder.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ckptring::plan {

/// The recorder's inside, whose calls are described there. Knows no tensor library and no format.
class Recording {
 public:
  using Node = KeyTree::Node;

  /// Memory that one recording leaves to the next: faulting it in again takes as long as the rest.
  struct Values;

  Recording(std::string operation, std::string path)
      : operation_(std::move(operation)), path_(std::move(path)) {}

  std::uint32_t storage(const void* identity, std::uint64_t bytes, std::string_view location,
                        const void* data, int device);
  void declare_volatile(std::uint32_t storage);

  void begin_dict() { begin(Step::Kind::begin_dict); }
  void end_dict() { end(Step::Kind::end_dict); }
  void begin_list() { begin(Step::Kind::begin_list); }
  void end_list() { end(Step::Kind::end_list); }
  void begin_tuple() { begin(Step::Kind::begin_tuple); }
  void end_tuple() { end(Step::Kind::end_tuple); }
  void key(std::string_view text);
  void key(std::int64_t number);
  void none() { push(Step::Kind::none, 0); }
  void boolean(bool value) { push(Step::Kind::boolean, value ? 1 : 0); }
  void integer(std::int64_t value) { push(Step::Kind::integer, value); }
  void real(double number);
  void string(std::string_view text);
  Node tensor(const TensorView& view);

  [[nodiscard]] std::string path_of(Node node) const { return keys_.path(node); }
  [[noreturn]] void refuse(std::string cause) const;
  [[noreturn]] void refuse_open(std::string cause) const;
  [[noreturn]] void refuse_at(Node node, std::string cause) const;
  [[nodiscard]] std::string operation_on(const std::string& key) const;
  [[nodiscard]] std::string operation_here() const { return operation_on(path_here()); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  void expect(std::size_t items);
  /// @throws Error invalid_argument that names the key where the walker is
  void require(bool holds, const char* what) const;

  // What was recorded.

  struct Storage {
    const void* data;
    std::uint64_t bytes;
    std::uint64_t dtypes = 0;  ///< a bit for each DType that views it
    std::uint32_t location;    ///< index
    std::uint32_t views = 0;
    Node first;  ///< the place of its first tensor
    std::int16_t device;
    bool is_volatile = false;
  };
  [[nodiscard]] std::span<const Storage> storages() const noexcept { return storages_; }
  [[nodiscard]] const std::string& location(const Storage& storage) const {
    return locations_[storage.location];
  }
  [[nodiscard]] std::size_t tensors() const noexcept { return values_.tensors.size(); }

  /// Calls `to` as this was called: begin_dict(), end_dict(Node), key(text), key(number), none()
  /// ..., tensor(TensorView).
  /// @throws Error internal if the state is not complete
  template <class To>
  void replay(To&& to) const;

  /// Ends the recording: all but the storages and the places is forgotten. @return what it was in
  [[nodiscard]] Values forget_values();
  /// Before the first value: records into memory of an earlier one.
  void record_into(Values&& memory) { values_ = std::move(memory); }

  // What comes with the state: see StateRecorder.
  std::vector<std::shared_ptr<void>> kept_alive;
  StateRecorder::ProducedOn produced_on;
  StateRecorder::CheckUnchanged check_unchanged;

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
  void push(Step::Kind kind, std::int64_t number);
  void push_text(Step::Kind kind, std::string_view text);
  void value();
  Node place();
  void require_key_wanted() const;
  [[nodiscard]] KeyStep step() const;
  [[nodiscard]] std::string path_here() const;
  [[noreturn]] void refuse_key(std::string_view text, std::string cause) const;
  [[nodiscard]] std::string_view text_of(const Step& step) const {
    return keys_.kept(static_cast<std::size_t>(step.text), step.length);
  }
  /// @param first_size  index of its first size in the shapes
  [[nodiscard]] TensorView view_of(const Tensor& tensor, std::size_t first_size) const;
  void require_complete() const;

  std::string operation_;
  std::string path_;
  KeyTree keys_;
  std::vector<Open> open_;  ///< the innermost last
  bool has_key_ = false;    ///< of a dict's next value: it is the last step
  bool is_complete_ = false;

  std::vector<Storage> storages_;
  std::vector<std::string> locations_;

 public:
  struct Values {
    std::vector<Step> steps;
    std::vector<Tensor> tensors;
    std::vector<std::int64_t> shapes;  ///< of each tensor its sizes, then its strides
    IdentityTable numbers;             ///< of storages

    void clear() {
      steps.clear();
      tensors.clear();
      shapes.clear();
      numbers.clear();
    }
    /// Of its memory.
    [[nodiscard]] std::size_t bytes() const {
      return steps.capacity() * sizeof(Step) + tensors.capacity() * sizeof(Tensor) +
             shapes.capacity() * sizeof(std::int64_t) + numbers.bytes();
    }
  };

 private:
  Values values_;
};

template <class To>
void Recording::replay(To&& to) const {
  require_complete();
  using Kind = Step::Kind;
  std::size_t shape = 0;
  for (const Step& step : values_.steps) {
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
        const Tensor& tensor = values_.tensors[static_cast<std::size_t>(step.integer)];
        to.tensor(view_of(tensor, shape));
        shape += std::size_t{2} * tensor.dimensions;
      }
    }
  }
}

}  // namespace ckptring::plan
