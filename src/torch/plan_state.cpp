#include "torch/plan_state.h"

#include "base/make_room.h"
#include "os/clock.h"
#include "plan/pt_layout.h"
#include "plan/state_recorder.h"
#include "plan/utf8.h"
#include "torch/bare_tensor.h"
#include "torch/current_stream.h"
#include "torch/dtype_map.h"
#include "torch/libtorch_error.h"
#include "torch/lookahead.h"
#include "torch/volatile_mark.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::torch_state {
namespace {

using c10::IValue;
using plan::StateRecorder;
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

/// Everything that outlives planning: what to compare before the save is sealed, and names.
struct SeenState {
  SeenState(const char* operation, std::string path_of_save)
      : path(std::move(path_of_save)), recorder(operation, path) {}

  std::string path;
  StateRecorder recorder;
  std::vector<SeenVersion> versions;
  std::vector<SeenStorage> storages;  ///< by index

  void check_unchanged(int place, const save::Captured& captured) const {
    const auto is_looked_at = [&](std::uint32_t storage) {
      return storages[storage].place == place && !captured.has(storage);
    };
    for (const SeenVersion& seen : versions) {
      if (seen.counter.current_version() == seen.version || !is_looked_at(seen.storage)) continue;
      refuse(recorder.path_of(seen.key), place, "the tensor was modified");
    }
    for (std::uint32_t i = 0; i < storages.size(); ++i) {
      const SeenStorage& seen = storages[i];
      if (!is_looked_at(i)) continue;
      if (data_of(*seen.storage) == seen.data && seen.storage->nbytes() == seen.bytes) continue;
      refuse(name_of(i), place, "the tensor's storage was given other memory");
    }
  }

  /// The key of a storage's first tensor.
  [[nodiscard]] std::string name_of(std::uint32_t storage) const {
    return recorder.path_of(recorder.storages()[storage].first);
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
    const bool on_host = place == stage::kHost;
    throw Error(ErrorCode::changed_while_staging, fmt::format("stage key {} for", key), path,
                fmt::format("{} before {}; {} first", what,
                            on_host ? "`staged` was ready" : "`staged` was ready or `fence` called",
                            on_host ? "wait for it" : "wait for the one or call the other"));
  }
};

Error device_failed(const std::string& operation, const std::string& path, std::string cause) {
  return {ErrorCode::device_failed, operation, path, std::move(cause)};
}

/// Walks a state once: records it, with the tensors' storages and versions beside.
class Walk {
 public:
  Walk(SeenState& seen, stage::DeviceAccess& devices)
      : recorder_(seen.recorder), seen_(seen), devices_(devices) {}

  /// Containers within containers are walked by a loop: the caller's stack may be small.
  void run(const StateDict& state) {
    open_dict(state);
    while (!open_.empty()) {
      std::visit([this](auto& container) { go_on(container); }, open_.back());
    }
  }

  std::vector<stage::Source> take_sources() { return std::move(sources_); }
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
    if (is_volatile(*impl)) sources_[storage].is_volatile = true;
    // Inference tensors have no version counter.
    const c10::VariableVersion& counter = impl->version_counter();
    if (counter.enabled()) {
      seen_.versions.push_back({counter, counter.current_version(), storage, node});
    }
  }

  void check_device(c10::Device device) {
    const auto refuse_it = [&](const std::string& why) {
      recorder_.refuse(
          fmt::format("a tensor on device {} cannot be stored: {}", device.str(), why));
    };
    if (!device.is_cuda()) refuse_it("only host memory and CUDA devices are supported");
    const stage::DeviceCopies* copies = nullptr;
    try {
      copies = devices_.copies();
    } catch (const Error& failure) {
      throw device_failed(recorder_.operation_here(), seen_.path,
                          fmt::format("device {}: {}", device.str(), failure.what()));
    }
    if (copies == nullptr) refuse_it(devices_.why_not());
  }

  std::uint32_t add_storage(const c10::Storage& storage) {
    const c10::StorageImpl* impl = storage.unsafeGetStorageImpl();
    const c10::Device device = impl->device();
    const std::uint32_t number = device.is_cpu()
                                     ? recorder_.storage(impl, impl->nbytes(), "cpu")
                                     : recorder_.storage(impl, impl->nbytes(), device.str());
    if (number < storages_.size()) return number;
    const void* data = nullptr;
    try {
      data = impl->data();
    } catch (const c10::Error& error) {
      recorder_.refuse("its memory cannot be read: " + words_of(error));
    }
    const int place = device.is_cpu() ? stage::kHost : device.index();
    sources_.push_back({static_cast<const std::byte*>(data), impl->nbytes(), place});
    storages_.push_back(storage);
    seen_.storages.push_back({impl, data, impl->nbytes(), place});
    return number;
  }

  /// See StateRecorder::expect.
  void expect(std::size_t values) {
    recorder_.expect(values);
    base::make_room(sources_, values);
    base::make_room(storages_, values);
    base::make_room(seen_.versions, values);
    base::make_room(seen_.storages, values);
  }

  StateRecorder& recorder_;
  SeenState& seen_;
  stage::DeviceAccess& devices_;
  std::deque<std::variant<OpenDict, OpenSequence>>
      open_;  ///< the innermost last; they stay in place
  std::vector<c10::Storage> storages_;
  std::vector<stage::Source> sources_;
};

/// Metadata becomes JSON, which has no invalid UTF-8.
void check_metadata(const std::string& path, const Metadata& metadata) {
  const auto refuse = [&](const std::string& cause) {
    throw Error(ErrorCode::invalid_argument, "save metadata to", path, cause);
  };
  for (const auto& [key, value] : metadata) {
    if (!plan::is_utf8(key)) refuse("a key is not valid UTF-8");
    if (const auto* text = std::get_if<std::string>(&value); text && !plan::is_utf8(*text)) {
      refuse(fmt::format("the value of {} is not valid UTF-8", key));
    }
  }
}

}  // namespace

void check_save_path(const std::string& path) {
  const auto refuse = [&](const char* cause) {
    throw Error(ErrorCode::invalid_argument, "save to", path, cause);
  };
  if (path.empty()) refuse("the path is empty");
  if (path.find('\0') != std::string::npos) refuse("the path contains a NUL");
}

namespace {

/// One mark for each device, however many tensors are there. Whoever has none on devices never
/// touches CUDA.
std::vector<save::DeviceState> mark_devices_of(std::span<const stage::Source> sources,
                                               const SeenState& seen,
                                               stage::DeviceAccess& devices) {
  std::map<int, std::size_t> first_on;  // index of a source
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (sources[i].place != stage::kHost) first_on.emplace(sources[i].place, i);
  }
  std::vector<save::DeviceState> states;
  for (const auto& [device, first] : first_on) {
    try {
      // The walk refused what could not be copied.
      states.push_back(mark_device(device, *devices.copies()));
    } catch (const Error& failure) {
      // CUDA's, or that a stream is being captured into a graph, which is the caller's to change.
      throw Error(failure.code(),
                  seen.recorder.operation_on(seen.name_of(static_cast<std::uint32_t>(first))),
                  seen.path, failure.what());
    }
  }
  return states;
}

save::SaveJob walk_state(const std::string& path, const StateDict& state,
                         const SaveOptions& options, const RankInfo& rank,
                         stage::DeviceAccess& devices) {
  const std::uint64_t start = os::monotonic_ns();
  check_metadata(path, options.metadata);
  const auto seen = std::make_shared<SeenState>(path.empty() ? "prepare" : "save", path);
  Walk walk(*seen, devices);
  walk.run(state);
  plan::FilePlan plan = plan::lay_out_pt(seen->recorder, {rank, options.step, options.metadata});
  seen->recorder.forget_values();
  std::vector<stage::Source> sources = walk.take_sources();
  std::vector<save::DeviceState> device_states = mark_devices_of(sources, *seen, devices);
  return {
      .path = path,
      .plan = std::move(plan),
      .sources = std::move(sources),
      .devices = std::move(device_states),
      .keep_alive = std::make_shared<std::vector<c10::Storage>>(walk.take_storages()),
      .check_unchanged =
          [seen](int place, const save::Captured& captured) {
            seen->check_unchanged(place, captured);
          },
      .name_of = [seen](std::uint32_t source) { return seen->name_of(source); },
      .planned_seconds = os::seconds_since(start),
  };
}

}  // namespace

save::SaveJob plan_state(const std::string& path, const StateDict& state,
                         const SaveOptions& options, const RankInfo& rank,
                         stage::DeviceAccess& devices) {
  return in_own_words(ErrorCode::unsupported_value, path.empty() ? "prepare" : "save to", path,
                      [&] { return walk_state(path, state, options, rank, devices); });
}

}  // namespace ckptring::torch_state
