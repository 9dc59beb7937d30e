// A state as a save is told of it, value by value, whatever library its tensors are from.
// Read next: saver.h.
//
//   saver->save("run/step_100", [&](ckptring::StateRecorder& state) {
//     state.begin_dict();
//     state.key("weight");
//     state.tensor({.dtype = ckptring::DType::float32,
//                   .storage = state.storage({.data = weight.data(), .bytes = 24}),
//                   .sizes = sizes,        // {2, 3}
//                   .strides = strides});  // {3, 1}
//     state.key("step");
//     state.integer(100);
//     state.end_dict();
//   });
#pragma once

#include <ckptring/dtype.h>
#include <ckptring/export.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring {

namespace plan {
class Recording;
}

/// The host as the place of memory; others are the numbers of CUDA devices.
inline constexpr int kHost = -1;

/// A piece of memory that tensors are views of. It is read until the save is staged.
struct StorageView {
  /// May be null if it has no bytes; on a device only the device may read it.
  const void* data = nullptr;
  std::uint64_t bytes = 0;
  int device = kHost;
  const void* identity = nullptr;  ///< tensors with the same one share it; null: `data`
};

/// A tensor as a view of a storage. Offset, sizes and strides count elements.
struct TensorView {
  DType dtype;
  std::uint32_t storage;  ///< what StateRecorder::storage gave
  std::int64_t offset = 0;
  std::span<const std::int64_t> sizes;
  std::span<const std::int64_t> strides;
  bool requires_grad = false;
  bool conj = false;
  bool neg = false;
};

/// The walker calls in the order of the state: `begin_dict`, then `key` and a value for each item,
/// `end_dict`; lists and tuples alike, without keys. A value is a container, a tensor (after the
/// `storage` that it views), a number, a string or None. The whole is one value, for whoever loads
/// it with PyTorch a dict. Texts and shapes are copied; the bytes of storages are not, nor looked
/// at.
///
/// Knows no tensor library and no format. Every error names the key where the walker is. One
/// thread at a time.
class CKPTRING_API StateRecorder {
 public:
  using Node = std::uint32_t;  ///< where in the state a value is

  /// @param operation, path  for messages: "save", "run/step_100". Without a path they say the
  ///                         operation only
  explicit StateRecorder(std::string operation = "save", std::string path = {});
  ~StateRecorder();
  StateRecorder(const StateRecorder&) = delete;
  StateRecorder& operator=(const StateRecorder&) = delete;

  /// The storage that `view.identity` names: the same number for the same one, counted from 0 as
  /// they come. Its size and memory are those told first.
  /// @throws Error unsupported_value for more than 4 billion
  std::uint32_t storage(const StorageView& view);
  /// Its memory may be written to as soon as `save` has returned, which copies it before.
  void declare_volatile(std::uint32_t storage);

  void begin_dict();
  void end_dict();
  void begin_list();
  void end_list();
  void begin_tuple();
  void end_tuple();

  /// The key of the next value.
  /// @throws Error unsupported_value if it is no UTF-8, or longer than 4 GiB
  void key(std::string_view text);
  void key(std::int64_t number);

  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  void real(double value);
  /// @throws Error unsupported_value as `key`
  void string(std::string_view text);
  /// @return its place
  /// @throws Error unsupported_value if its elements do not lie in the storage, or it could not be
  ///         read again
  Node tensor(const TensorView& view);

  /// Makes room for the items of one container, which are mostly tensors: growing by doubling
  /// alone would fault in twice the memory.
  void expect(std::size_t items);

  // For messages.

  /// As "model.layers[0].weight".
  [[nodiscard]] std::string path_of(Node node) const;
  /// Of its first tensor.
  [[nodiscard]] std::string path_of_storage(std::uint32_t storage) const;
  /// The value that comes next cannot be stored.
  /// @throws Error unsupported_value that names its key
  [[noreturn]] void refuse(std::string cause) const;
  /// The container that is open cannot.
  [[noreturn]] void refuse_open(std::string cause) const;

  // What a save needs to know beside the values.

  /// Let go of once the save is staged, or has failed: what owns the memory of storages.
  void keep_alive(std::shared_ptr<void> owner);

  /// On which stream a device's part of the state is produced. Called in the thread that saves,
  /// once for each device, with a function that is to be called with the native stream (a
  /// cudaStream_t) while that device is current. Without it: the device's legacy default stream.
  using ProducedOn = std::function<void(int device, const std::function<void(void* stream)>& use)>;
  void produced_on(ProducedOn streams);

  /// Whether what is in memory at a place (kHost, or a device) is what it was when it was
  /// recorded, but for the storages that were `captured` before `save` returned (by number; empty:
  /// none). Called in any thread, before the save is sealed; throws Error changed_while_staging.
  using CheckUnchanged =
      std::function<void(const StateRecorder& state, int place, const std::vector<bool>& captured)>;
  void check_unchanged(CheckUnchanged check);

  /// For the library.
  [[nodiscard]] plan::Recording& recording() noexcept { return *recording_; }
  [[nodiscard]] const plan::Recording& recording() const noexcept { return *recording_; }

 private:
  std::unique_ptr<plan::Recording> recording_;
};

}  // namespace ckptring
