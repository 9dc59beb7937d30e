#include "torch/plan_state.h"

#include "os/clock.h"
#include "plan/pickle_opcodes.h"
#include "plan/pt_plan_builder.h"
#include "plan/tensor_bounds.h"
#include "torch/bare_tensor.h"
#include "torch/current_stream.h"
#include "torch/dtype_map.h"
#include "torch/key_tree.h"
#include "torch/libtorch_error.h"
#include "torch/lookahead.h"
#include "torch/volatile_mark.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/flat_hash_map.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::torch_state {
namespace {

using c10::IValue;
using Node = KeyTree::Node;

/// One call to the builder. The survey records them in order, so that every error is found and
/// every storage known before the first one is made.
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
    std::uint64_t text;  ///< where it begins in `texts_`
  };
};

/// A tensor as the builder wants it, copied: reading it again would be waiting for memory again.
struct SurveyedTensor {
  std::int64_t offset;
  std::size_t shape;  ///< index of its first size in `shapes_`; its strides follow its sizes
  std::size_t dimensions;
  std::uint32_t storage;
  plan::DType dtype;
  bool requires_grad;
  bool conj;
  bool neg;
};

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
  Node key;  ///< of its first tensor
};

/// Everything that outlives planning: what to compare before the save is sealed, and names.
struct SeenState {
  std::string path;
  KeyTree keys;
  std::vector<SeenVersion> versions;
  std::vector<SeenStorage> storages;  ///< by index

  void check_unchanged(int place, const save::Captured& captured) const {
    const auto is_looked_at = [&](std::uint32_t storage) {
      return storages[storage].place == place && !captured.has(storage);
    };
    for (const SeenVersion& seen : versions) {
      if (seen.counter.current_version() == seen.version || !is_looked_at(seen.storage)) continue;
      refuse(seen.key, place, "the tensor was modified");
    }
    for (std::uint32_t i = 0; i < storages.size(); ++i) {
      const SeenStorage& seen = storages[i];
      if (!is_looked_at(i)) continue;
      if (data_of(*seen.storage) == seen.data && seen.storage->nbytes() == seen.bytes) continue;
      refuse(seen.key, place, "the tensor's storage was given other memory");
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

  [[noreturn]] void refuse(Node key, int place, const char* what) const {
    const bool on_host = place == stage::kHost;
    throw Error(ErrorCode::changed_while_staging, fmt::format("stage key {} for", keys.path(key)),
                path,
                fmt::format("{} before {}; {} first", what,
                            on_host ? "`staged` was ready" : "`staged` was ready or `fence` called",
                            on_host ? "wait for it" : "wait for the one or call the other"));
  }
};

/// Without a path it is `prepare`'s.
std::string operation(const std::string& key, const std::string& path) {
  return fmt::format("{} key {}{}", path.empty() ? "prepare" : "save", key,
                     path.empty() ? "" : " to");
}

Error device_failed(const std::string& key, const std::string& path, std::string cause) {
  return {ErrorCode::device_failed, operation(key, path), path, std::move(cause)};
}

/// Walks a state once: checks every value and writes down steps, tensors and storages.
class Survey {
 public:
  Survey(plan::PtPlanBuilder& builder, SeenState& seen, stage::DeviceAccess& devices)
      : builder_(builder), seen_(seen), devices_(devices) {}

  /// Containers within containers are walked by a loop: the caller's stack may be small.
  void walk(const StateDict& state) {
    open_dict(state, KeyTree::kRoot, 0);
    while (!open_.empty()) {
      std::visit([this](auto& container) { go_on(container); }, open_.back());
    }
  }

  /// Second half: hands everything to the builder. Nothing can fail any more but a dict's keys.
  void emit() {
    for (const Step& step : steps_) {
      switch (step.kind) {
        case Step::Kind::begin_dict:
          builder_.begin_dict();
          break;
        case Step::Kind::end_dict:
          end_dict(static_cast<Node>(step.integer));
          break;
        case Step::Kind::begin_list:
          builder_.begin_list();
          break;
        case Step::Kind::end_list:
          builder_.end_list();
          break;
        case Step::Kind::begin_tuple:
          builder_.begin_tuple();
          break;
        case Step::Kind::end_tuple:
          builder_.end_tuple();
          break;
        case Step::Kind::key_text:
          builder_.key(text_of(step));
          break;
        case Step::Kind::key_number:
          builder_.key(step.integer);
          break;
        case Step::Kind::none:
          builder_.none();
          break;
        case Step::Kind::boolean:
          builder_.boolean(step.integer != 0);
          break;
        case Step::Kind::integer:
          builder_.integer(step.integer);
          break;
        case Step::Kind::real:
          builder_.real(step.real);
          break;
        case Step::Kind::text:
          builder_.string(text_of(step));
          break;
        case Step::Kind::tensor:
          emit_tensor(tensors_[static_cast<std::size_t>(step.integer)]);
      }
    }
  }

  std::vector<stage::Source> take_sources() { return std::move(sources_); }
  std::vector<c10::Storage> take_storages() { return std::move(storages_); }

 private:
  static constexpr std::size_t kTypicalShape = 4;  ///< two sizes, two strides

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
    Node node;
    unsigned depth;
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
    Step::Kind end;
    Node node;
    unsigned depth;
  };

  void open_dict(const StateDict& dict, Node node, unsigned depth) {
    check_depth(node, depth);
    expect(dict.size());
    push(Step::Kind::begin_dict);
    open_.emplace_back(OpenDict{dict, dict.begin(), {dict.begin(), dict.end(), {}}, node, depth});
  }

  void open_sequence(c10::ArrayRef<IValue> items, Step::Kind begin, Step::Kind end, Node node,
                     unsigned depth) {
    check_depth(node, depth);
    expect(items.size());
    push(begin);
    open_.emplace_back(OpenSequence{items, 0, {items.begin(), items.end(), {}}, end, node, depth});
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
        // The dict's own key shares this string, so it lives as long as the dict.
        const std::string& text = key.toStringRef();
        const KeyStep step = KeyStep::of(text);
        if (!plan::is_utf8(text)) refuse(in.node, step, "the key is not valid UTF-8");
        if (!push_text(Step::Kind::key_text, text)) refuse(in.node, step, "the key exceeds 4 GiB");
        visit(value, in.node, step, in.depth);
      } else if (key.isInt()) {
        const KeyStep step = KeyStep::of_key(key.toInt());
        push_integer(Step::Kind::key_number, key.toInt());
        visit(value, in.node, step, in.depth);
      } else {
        refuse_node(in.node, fmt::format("a key of this dict is a {}; keys are strings or ints",
                                         key.tagKind()));
      }
      if (open_.size() != open) return;
    }
    push_integer(Step::Kind::end_dict, in.node);
    open_.pop_back();
  }

  void go_on(OpenSequence& in) {
    const std::size_t open = open_.size();
    while (in.at != in.items.size()) {
      in.ahead.step();
      const std::size_t index = in.at++;
      visit(in.items[index], in.node, KeyStep::at(index), in.depth);
      if (open_.size() != open) return;
    }
    push(in.end);
    open_.pop_back();
  }

  void visit(const IValue& value, Node parent, const KeyStep& step, unsigned depth) {
    if (value.isTensor()) {
      try {
        tensor(value.toTensor(), parent, step);
      } catch (const c10::Error& failure) {
        refuse(parent, step, "libtorch tells nothing of the tensor there: " + words_of(failure));
      }
    } else if (value.isNone()) {
      push(Step::Kind::none);
    } else if (value.isInt()) {
      push_integer(Step::Kind::integer, value.toInt());
    } else if (value.isDouble()) {
      steps_.push_back({.kind = Step::Kind::real, .real = value.toDouble()});
    } else if (value.isBool()) {
      push_integer(Step::Kind::boolean, value.toBool() ? 1 : 0);
    } else if (value.isString()) {
      const std::string& text = value.toStringRef();
      if (!plan::is_utf8(text)) refuse(parent, step, "the string is not valid UTF-8");
      if (!push_text(Step::Kind::text, text)) refuse(parent, step, "the string exceeds 4 GiB");
    } else if (value.isGenericDict()) {
      open_dict(value.toGenericDict(), seen_.keys.add(parent, step), depth + 1);
    } else if (value.isList()) {
      open_sequence(value.toListRef(), Step::Kind::begin_list, Step::Kind::end_list,
                    seen_.keys.add(parent, step), depth + 1);
    } else if (value.isTuple()) {
      open_sequence(value.toTupleRef().elements(), Step::Kind::begin_tuple, Step::Kind::end_tuple,
                    seen_.keys.add(parent, step), depth + 1);
    } else {
      refuse(parent, step, fmt::format("a value of kind {} cannot be stored", value.tagKind()));
    }
  }

  void tensor(const at::Tensor& tensor, Node parent, const KeyStep& step) {
    if (!tensor.defined()) return push(Step::Kind::none);
    const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    if (!impl->device().is_cpu()) check_device(impl->device(), parent, step);
    if (const auto why = why_no_view(tensor)) {
      refuse(parent, step, "the tensor cannot be stored: it is " + *why);
    }
    const auto dtype = to_dtype(tensor.scalar_type());
    if (!dtype) {
      refuse(parent, step,
             fmt::format("a tensor of dtype {} cannot be stored",
                         c10::toString(tensor.scalar_type())));
    }
    const Node node = seen_.keys.add(parent, step);
    const std::uint32_t storage = add_storage(impl->unsafe_storage(), node);
    // As whoever reads it will ask. A storage may have been shrunk under its tensors.
    if (const auto problem =
            plan::tensor_problem({.dtype = *dtype,
                                  .storage_bytes = sources_[storage].size,
                                  .offset = impl->storage_offset(),
                                  .sizes = {impl->sizes().data(), impl->sizes().size()},
                                  .strides = {impl->strides().data(), impl->strides().size()},
                                  .conj = impl->is_conj(),
                                  .neg = tensor.is_neg(),
                                  .requires_grad = impl->requires_grad()})) {
      refuse(parent, step, "the tensor could not be read again: " + *problem);
    }
    builder_.note_view(storage, *dtype);
    if (is_volatile(*impl)) sources_[storage].is_volatile = true;
    // Inference tensors have no version counter.
    const c10::VariableVersion& counter = impl->version_counter();
    if (counter.enabled()) {
      seen_.versions.push_back({counter, counter.current_version(), storage, node});
    }
    push_integer(Step::Kind::tensor, static_cast<std::int64_t>(tensors_.size()));
    const std::size_t shape = shapes_.size();
    shapes_.insert(shapes_.end(), impl->sizes().begin(), impl->sizes().end());
    shapes_.insert(shapes_.end(), impl->strides().begin(), impl->strides().end());
    tensors_.push_back({.offset = impl->storage_offset(),
                        .shape = shape,
                        .dimensions = impl->sizes().size(),
                        .storage = storage,
                        .dtype = *dtype,
                        .requires_grad = impl->requires_grad(),
                        .conj = impl->is_conj(),
                        .neg = tensor.is_neg()});
  }

  void check_device(c10::Device device, Node parent, const KeyStep& step) {
    const auto refuse_it = [&](const std::string& why) {
      refuse(parent, step,
             fmt::format("a tensor on device {} cannot be stored: {}", device.str(), why));
    };
    if (!device.is_cuda()) refuse_it("only host memory and CUDA devices are supported");
    const stage::DeviceCopies* copies = nullptr;
    try {
      copies = devices_.copies();
    } catch (const Error& failure) {
      throw device_failed(seen_.keys.path(parent, step), seen_.path,
                          fmt::format("device {}: {}", device.str(), failure.what()));
    }
    if (copies == nullptr) refuse_it(devices_.why_not());
  }

  std::uint32_t add_storage(const c10::Storage& storage, Node node) {
    const c10::StorageImpl* impl = storage.unsafeGetStorageImpl();
    const auto [found, is_new] =
        storage_index_.emplace(impl, static_cast<std::uint32_t>(storages_.size()));
    if (!is_new) return found->second;
    const void* data = nullptr;
    try {
      data = impl->data();
    } catch (const c10::Error& error) {
      refuse_node(node, "its memory cannot be read: " + words_of(error));
    }
    const c10::Device device = impl->device();
    const int place = device.is_cpu() ? stage::kHost : device.index();
    builder_.add_storage(impl->nbytes(), device.is_cpu() ? "cpu" : device.str());
    sources_.push_back({static_cast<const std::byte*>(data), impl->nbytes(), place});
    storages_.push_back(storage);
    seen_.storages.push_back({impl, data, impl->nbytes(), place, node});
    return found->second;
  }

  void end_dict(Node node) {
    try {
      builder_.end_dict();
    } catch (const Error& failure) {
      if (failure.code() == ErrorCode::unsupported_value) refuse_node(node, failure.cause());
      throw;
    }
  }

  void emit_tensor(const SurveyedTensor& tensor) {
    const std::span shape = std::span(shapes_).subspan(tensor.shape);
    builder_.tensor({
        .dtype = tensor.dtype,
        .storage = tensor.storage,
        .offset = tensor.offset,
        .sizes = shape.first(tensor.dimensions),
        .strides = shape.subspan(tensor.dimensions, tensor.dimensions),
        .requires_grad = tensor.requires_grad,
        .conj = tensor.conj,
        .neg = tensor.neg,
    });
  }

  /// Makes room for the values of one container, which are mostly tensors: growing by doubling
  /// alone would fault in twice the memory.
  void expect(std::size_t values) {
    const auto make_room = [](auto& container, std::size_t more) {
      const std::size_t needed = container.size() + more;
      if (needed > container.capacity()) {
        container.reserve(std::max(needed, 2 * container.capacity()));
      }
    };
    make_room(steps_, 2 * values + 2);
    make_room(tensors_, values);
    make_room(shapes_, kTypicalShape * values);
    make_room(sources_, values);
    make_room(storages_, values);
    make_room(seen_.versions, values);
    make_room(seen_.storages, values);
  }

  void push(Step::Kind kind) { push_integer(kind, 0); }
  void push_integer(Step::Kind kind, std::int64_t value) {
    steps_.push_back({.kind = kind, .integer = value});
  }
  /// Copies the text. False if it is longer than a file can have it.
  bool push_text(Step::Kind kind, const std::string& text) {
    if (text.size() > std::numeric_limits<std::uint32_t>::max()) return false;
    steps_.push_back(
        {.kind = kind, .length = static_cast<std::uint32_t>(text.size()), .text = texts_.size()});
    texts_ += text;
    return true;
  }
  [[nodiscard]] std::string_view text_of(const Step& step) const {
    return std::string_view(texts_).substr(static_cast<std::size_t>(step.text), step.length);
  }

  void check_depth(Node node, unsigned depth) const {
    if (depth < plan::kMaxDepth) return;
    refuse_node(node,
                fmt::format("nested more than {} deep, or it contains itself", plan::kMaxDepth));
  }
  [[noreturn]] void refuse(Node parent, const KeyStep& step, std::string cause) const {
    refuse_path(seen_.keys.path(parent, step), std::move(cause));
  }
  [[noreturn]] void refuse_node(Node node, std::string cause) const {
    refuse_path(seen_.keys.path(node), std::move(cause));
  }
  [[noreturn]] void refuse_path(const std::string& key, std::string cause) const {
    throw Error(ErrorCode::unsupported_value, operation(key, seen_.path), seen_.path,
                std::move(cause));
  }

  plan::PtPlanBuilder& builder_;
  SeenState& seen_;
  stage::DeviceAccess& devices_;
  std::deque<std::variant<OpenDict, OpenSequence>>
      open_;  ///< the innermost last; they stay in place
  std::vector<Step> steps_;
  std::string texts_;  ///< of all steps
  std::vector<SurveyedTensor> tensors_;
  std::vector<std::int64_t> shapes_;  ///< sizes and strides of one tensor after the other
  ska::flat_hash_map<const c10::StorageImpl*, std::uint32_t> storage_index_;
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
      // The survey refused what could not be copied.
      states.push_back(mark_device(device, *devices.copies()));
    } catch (const Error& failure) {
      // CUDA's, or that a stream is being captured into a graph, which is the caller's to change.
      throw Error(failure.code(), operation(seen.keys.path(seen.storages[first].key), seen.path),
                  seen.path, failure.what());
    }
  }
  return states;
}

save::SaveJob survey_state(const std::string& path, const StateDict& state,
                           const SaveOptions& options, const RankInfo& rank,
                           stage::DeviceAccess& devices) {
  const std::uint64_t start = os::monotonic_ns();
  check_metadata(path, options.metadata);
  const auto seen = std::make_shared<SeenState>();
  seen->path = path;
  plan::PtPlanBuilder builder;
  Survey survey(builder, *seen, devices);
  survey.walk(state);
  survey.emit();
  plan::FilePlan plan = builder.finish(rank, options.step, options.metadata);
  std::vector<stage::Source> sources = survey.take_sources();
  std::vector<save::DeviceState> device_states = mark_devices_of(sources, *seen, devices);
  return {
      .path = path,
      .plan = std::move(plan),
      .sources = std::move(sources),
      .devices = std::move(device_states),
      .keep_alive = std::make_shared<std::vector<c10::Storage>>(survey.take_storages()),
      .check_unchanged =
          [seen](int place, const save::Captured& captured) {
            seen->check_unchanged(place, captured);
          },
      .name_of =
          [seen](std::uint32_t source) { return seen->keys.path(seen->storages[source].key); },
      .planned_seconds = os::seconds_since(start),
  };
}

}  // namespace

save::SaveJob plan_state(const std::string& path, const StateDict& state,
                         const SaveOptions& options, const RankInfo& rank,
                         stage::DeviceAccess& devices) {
  return in_own_words(ErrorCode::unsupported_value, path.empty() ? "prepare" : "save to", path,
                      [&] { return survey_state(path, state, options, rank, devices); });
}

}  // namespace ckptring::torch_state
