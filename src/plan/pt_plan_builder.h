// Lays out a `.pt` archive: the walker calls it value by value, it answers with a FilePlan.
#pragma once

#include "plan/dtype.h"
#include "plan/file_plan.h"
#include "plan/utf8.h"

#include <ckptring/checkpoints.h>
#include <ckptring/rank_info.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace ckptring::plan {

/// A tensor as a view of a storage. Offsets, sizes and strides count elements. Its elements lie in
/// the storage: the walker asks tensor_problem (tensor_bounds.h), where it knows the key.
struct TensorView {
  DType dtype;
  std::uint32_t storage;  ///< index from add_storage
  std::int64_t offset;
  std::span<const std::int64_t> sizes;
  std::span<const std::int64_t> strides;
  bool requires_grad;
  bool conj;
  bool neg;
};

/// Usage, in two steps so that dtypes shared by one storage are known before the first tensor is
/// written:
///   1. add_storage / note_view for every storage and tensor of the state, in walking order
///   2. begin_dict, key, ... end_dict for the whole state, once
///   3. finish
/// Strings must be UTF-8; the walker checks that with `is_utf8`, where it knows the key.
///
/// `requires_grad` is kept except for tensors that stock torch can only read without it: those
/// of a dtype without a typed storage, of a storage viewed under two dtypes, or of one whose size
/// is no multiple of the element's.
///
/// One thread at a time. Every function may throw Error: unsupported_value where a bound of the
/// format is exceeded (docs/FORMAT.md, Limits), internal where the order above is broken.
class PtPlanBuilder {
 public:
  PtPlanBuilder();
  ~PtPlanBuilder();
  PtPlanBuilder(PtPlanBuilder&&) noexcept;
  PtPlanBuilder& operator=(PtPlanBuilder&&) noexcept;

  /// Announces a storage. `location` is the device as torch writes it: "cpu", "cuda:0".
  /// @return its index, counted from 0; also `Payload::source`
  std::uint32_t add_storage(std::uint64_t bytes, std::string_view location);
  /// Announces that a tensor of this dtype views the storage.
  void note_view(std::uint32_t storage, DType dtype);

  void begin_dict();
  void end_dict();
  void begin_list();
  void end_list();
  void begin_tuple();
  void end_tuple();
  void key(std::string_view text);
  void key(std::int64_t number);
  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  void real(double value);
  void string(std::string_view text);
  void tensor(const TensorView& view);

  /// Ends the pickle and lays out the file. The builder is spent.
  /// @throws Error unsupported_value if a bound of the format is exceeded, or for metadata that
  ///         are not UTF-8
  [[nodiscard]] FilePlan finish(const RankInfo& rank, std::optional<std::int64_t> step,
                                const Metadata& metadata);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ckptring::plan
