#include "torch/record_state.h"

#include "base/make_room.h"
#include "torch/bare_tensor.h"
#include "torch/current_stream.h"
#include "torch/dtype_map.h"
#include "torch/libtorch_error.h"
#include "torch/lookahead.h"
#include "torch/volatile_mark.h"

#include <ckptring/error.h>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::torch_state {
namespace {

using c10::IValue;
using Node = StateRecorder::Node;

/// The version counter of a tensor as it was when the save was planned.
struct SeenVersion {
  c10::VariableVersion counter;
  std::uint32_t version;
  std::uint32_t storage;
  Node key;
};

/// A storage as it was then.
struct SeenStorage {
  const c10::StorageImpl* storage;  ///< kept alive by the job
  const void* data;
  std::size_t bytes;
  int place;
};

/// Everything that outlives recording: what to compare before the save is sealed.
struct SeenState {
  std::string path;
  std::vector<SeenVersion> versions;
  std::vector<SeenStorage> storages;  ///< by number

  void check_unchanged(const StateRecorder& state, int place,
                       const std::vector<bool>& captured) const {
    const auto is_looked_at = [&](std::uint32_t storage) {
      return storages[storage].place == place && !(storage < captured.size() && captured[storage]);
    };
    for (const SeenVersion& seen : versions) {
      if (seen.counter.current_version() == seen.version || !is_looked_at(seen.storage)) continue;
      refuse(state.path_of(seen.key), place, "the tensor was modified");
    }
    for (std::uint32_t i = 0; i < storages.size(); ++i) {
      const SeenStorage& seen = storages[i];
      if (!is_looked_at(i)) continue;
      if (data_of(*seen.storage) == seen.data && seen.storage->nbytes() == seen.bytes) continue;
      refuse(state.path_of_storage(i), place, "the tensor's storage was given other memory");
    }
  }

 private:
  static const void* data_of(const c10::StorageImpl& storage) {
    try {
      return storage.data();
    } catch (const c10::Error&) {
      return nullptr;  // it could be read before
    }
  }

  [[noreturn]] void refuse(const std::string& key, int place, const char* what) const {
    const bool on_host = place == kHost;
    throw Error(ErrorCode::changed_while_staging, fmt::format("stage key {} for", key), path,
                fmt::format("{} before {}; {} first", what,
                            on_host ? "`staged` was ready" : "`staged` was ready or `fence` called",
                            on_host ? "wait for it" : "wait for the one or call the other"));
  }
};

/// Walks a state once: records it, with the tensors' storages and versions beside.
class Walk {
 public:
  Walk(StateRecorder& recorder, SeenState& seen) : recorder_(recorder), seen_(seen) {}

  /// Containers within containers are walked by a loop: the caller's stack may be small.
  void run(const StateDict& state) {
    open_dict(state);
    while (!open_.empty()) {
      std::visit([this](auto& container) { go_on(container); }, open_.back());
    }
  }

  std::vector<c10::Storage> take_storages() { return std::move(storages_); }

 private:
  /// A container on the way from the state to what is looked at.
  struct OpenDict {
    struct Values {
      template <class Visit>
      void operator()(const StateDict::iterator& entry, Visit&& visit) const {
        visit(entry->key());
        visit(entry->value());
      }
    };
    StateDict dict;
    StateDict::iterator at;
    Lookahead<StateDict::iterator, Values> ahead;
  };
  struct OpenSequence {
    struct Values {
      template <class Visit>
      void operator()(const IValue* item, Visit&& visit) const {
        visit(*item);
      }
    };
    c10::ArrayRef<IValue> items;
    std::size_t at;
    Lookahead<const IValue*, Values> ahead;
    bool is_tuple;
  };

  void open_dict(const StateDict& dict) {
    expect(dict.size());
    recorder_.begin_dict();
    open_.emplace_back(OpenDict{dict, dict.begin(), {dict.begin(), dict.end(), {}}});
  }

  void open_sequence(c10::ArrayRef<IValue> items, bool is_tuple) {
    expect(items.size());
    is_tuple ? recorder_.begin_tuple() : recorder_.begin_list();
    open_.emplace_back(OpenSequence{items, 0, {items.begin(), items.end(), {}}, is_tuple});
  }

  /// Until it ends, or another one is opened within it.
  void go_on(OpenDict& in) {
    const std::size_t open = open_.size();
    while (in.at != in.dict.end()) {
      in.ahead.step();
      const IValue& key = in.at->key();
      const IValue& value = in.at->value();
      ++in.at;
      if (key.isString()) {
        recorder_.key(key.toStringRef());
      } else if (key.isInt()) {
        recorder_.key(key.toInt());
      } else {
        recorder_.refuse_open(
            fmt::format("a key of this dict is a {}; keys are strings or ints", key.tagKind()));
      }
      visit(value);
      if (open_.size() != open) return;
    }
    recorder_.end_dict();
    open_.pop_back();
  }

  void go_on(OpenSequence& in) {
    const std::size_t open = open_.size();
    while (in.at != in.items.size()) {
      in.ahead.step();
      visit(in.items[in.at++]);
      if (open_.size() != open) return;
    }
    in.is_tuple ? recorder_.end_tuple() : recorder_.end_list();
    open_.pop_back();
  }

  void visit(const IValue& value) {
    if (value.isTensor()) {
      try {
        tensor(value.toTensor());
      } catch (const c10::Error& failure) {
        recorder_.refuse("libtorch tells nothing of the tensor there: " + words_of(failure));
      }
    } else if (value.isNone()) {
      recorder_.none();
    } else if (value.isInt()) {
      recorder_.integer(value.toInt());
    } else if (value.isDouble()) {
      recorder_.real(value.toDouble());
    } else if (value.isBool()) {
      recorder_.boolean(value.toBool());
    } else if (value.isString()) {
      recorder_.string(value.toStringRef());
    } else if (value.isGenericDict()) {
      open_dict(value.toGenericDict());
    } else if (value.isList()) {
      open_sequence(value.toListRef(), /*is_tuple=*/false);
    } else if (value.isTuple()) {
      open_sequence(value.toTupleRef().elements(), /*is_tuple=*/true);
    } else {
      recorder_.refuse(fmt::format("a value of kind {} cannot be stored", value.tagKind()));
    }
  }

  void tensor(const at::Tensor& tensor) {
    if (!tensor.defined()) return recorder_.none();
    const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    if (!impl->device().is_cpu()) check_device(impl->device());
    if (const auto why = why_no_view(tensor)) {
      recorder_.refuse("the tensor cannot be stored: it is " + *why);
    }
    const auto dtype = to_dtype(tensor.scalar_type());
    if (!dtype) {
      recorder_.refuse(fmt::format("a tensor of dtype {} cannot be stored",
                                   c10::toString(tensor.scalar_type())));
    }
    const std::uint32_t storage = add_storage(impl->unsafe_storage());
    const Node node = recorder_.tensor({
        .dtype = *dtype,
        .storage = storage,
        .offset = impl->storage_offset(),
        .sizes = {impl->sizes().data(), impl->sizes().size()},
        .strides = {impl->strides().data(), impl->strides().size()},
        .requires_grad = impl->requires_grad(),
        .conj = impl->is_conj(),
        .neg = tensor.is_neg(),
    });
    if (is_volatile(*impl)) recorder_.declare_volatile(storage);
    // Inference tensors have no version counter.
    const c10::VariableVersion& counter = impl->version_counter();
    if (counter.enabled()) {
      seen_.versions.push_back({counter, counter.current_version(), storage, node});
    }
  }

  void check_device(c10::Device device) {
    if (device.is_cuda()) return;
    recorder_.refuse(
        fmt::format("a tensor on device {} cannot be stored: only host memory and CUDA devices are "
                    "supported",
                    device.str()));
  }

  std::uint32_t add_storage(const c10::Storage& storage) {
    const c10::StorageImpl* impl = storage.unsafeGetStorageImpl();
    const int place = impl->device().is_cpu() ? kHost : impl->device().index();
    const void* data = nullptr;
    try {
      data = impl->data();
    } catch (const c10::Error& error) {
      recorder_.refuse("its memory cannot be read: " + words_of(error));
    }
    const std::uint32_t number = recorder_.storage(
        {.data = data, .bytes = impl->nbytes(), .device = place, .identity = impl});
    if (number < storages_.size()) return number;
    storages_.push_back(storage);
    seen_.storages.push_back({impl, data, impl->nbytes(), place});
    return number;
  }

  /// See StateRecorder::expect.
  void expect(std::size_t values) {
    recorder_.expect(values);
    base::make_room(storages_, values);
    base::make_room(seen_.versions, values);
    base::make_room(seen_.storages, values);
  }

  StateRecorder& recorder_;
  SeenState& seen_;
  std::deque<std::variant<OpenDict, OpenSequence>>
      open_;  ///< the innermost last; they stay in place
  std::vector<c10::Storage> storages_;
};

}  // namespace

Saver::Record recorder_of(const StateDict& state, const std::string& path) {
  return [&state, path](StateRecorder& recorder) {
    in_own_words(ErrorCode::unsupported_value, path.empty() ? "prepare" : "save to", path, [&] {
      const auto seen = std::make_shared<SeenState>(SeenState{path, {}, {}});
      Walk walk(recorder, *seen);
      walk.run(state);
      recorder.keep_alive(std::make_shared<std::vector<c10::Storage>>(walk.take_storages()));
      recorder.produced_on(use_current_stream);
      recorder.check_unchanged(
          [seen](const StateRecorder& recorded, int place, const std::vector<bool>& captured) {
            seen->check_unchanged(recorded, place, captured);
          });
    });
  };
}

}  // namespace ckptring::torch_state
