// What a load has to do once everything is checked: which tensors are filled from which records,
// and which places of the state then get a new value.
#pragma once

#include "plan/pt_archive.h"
#include "plan/value.h"
#include "torch/key_tree.h"

#include <ckptring/error.h>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/Storage.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::torch_state {

/// A strided view of a record's bytes. Offset and strides count elements.
struct FileView {
  plan::DType dtype;
  std::uint64_t offset = 0;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
  bool conj = false;
  bool neg = false;
};

/// A tensor to be filled from the record that it stands under. Never without elements.
struct Fill {
  at::Tensor target;
  FileView view;
  KeyTree::Node key;
  bool fresh = false;     ///< made by this load: overwriting it is no news to the caller
  bool compared = false;  ///< `target` is filled from elsewhere, with what must be the same
  bool touched = false;   ///< a byte of `target` may have been written

  /// Says so, and tells autograd.
  void touch();
};

struct RecordFills {
  const plan::Record* record;
  std::vector<Fill> fills;
};

/// A container of the state that gets a new value, after all bytes are there.
struct Change {
  c10::IValue container;  ///< dict or list, shared with the state
  c10::IValue key;        ///< the dict's key; none to append to the list, else the list's index
  c10::IValue value;

  void apply() const;
};

/// Collected while a file is compared with a state. Nothing of the state is changed meanwhile.
class FillPlan {
 public:
  /// All must outlive this. `device` is for tensors that are made anew.
  FillPlan(const plan::PtArchive& archive, const std::string& file, c10::Device device)
      : archive_(archive), file_(file), device_(device), records_(archive.records().size()) {}
  ~FillPlan();
  FillPlan(const FillPlan&) = delete;
  FillPlan& operator=(const FillPlan&) = delete;

  /// The tensor of the file, over storages that are made by this plan and shared as in the file.
  /// @throws Error out_of_memory, of the host or the device; device_failed; invalid_argument (a
  ///         device that cannot be used)
  at::Tensor make_tensor(const plan::Tensor& tensor, KeyTree::Node key);

  /// `target` (of the same shape and dtype, with elements) is to be filled from the file.
  void fill_in_place(const at::Tensor& target, const plan::Tensor& tensor, KeyTree::Node key);
  /// `made` by this plan, of the same shape and dtype: what it is filled with has to be the same as
  /// `tensor`.
  void compare(const at::Tensor& made, const plan::Tensor& tensor, KeyTree::Node key);

  /// Keeps a container until the plan is gone. They are let go in the reverse order, so that those
  /// that hold others come first: libtorch would free what is nested by recursion, and a thread's
  /// stack may be small.
  void keep(c10::IValue container) { kept_.push_back(std::move(container)); }

  [[nodiscard]] Error error(ErrorCode code, const std::string& key, std::string cause) const;

  /// Applying the changes takes no memory after this.
  void make_room_for_changes() const;

  /// In file order, so that a disk reads forward.
  std::vector<RecordFills> take_records();

  KeyTree keys;
  std::vector<Change> changes;
  std::vector<std::string> missing_keys;

 private:
  struct RecordState {
    RecordFills fills;
    c10::Storage fresh;  ///< null until a tensor is made over it
  };
  RecordState& record_of(const plan::Tensor& tensor);
  Fill& add_fill(const at::Tensor& target, const plan::Tensor& tensor, KeyTree::Node key);
  at::Tensor make_over(RecordState& state, const plan::Tensor& tensor, KeyTree::Node key) const;
  [[nodiscard]] c10::Storage make_storage(std::uint64_t bytes) const;

  const plan::PtArchive& archive_;
  const std::string& file_;
  c10::Device device_;
  std::vector<RecordState> records_;  ///< of the archive
  std::vector<c10::IValue> kept_;
};

}  // namespace ckptring::torch_state
