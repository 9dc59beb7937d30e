#include "plan/pickle_machine.h"

#include "base/align.h"
#include "plan/utf8.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

namespace ckptring::plan {
namespace {

using Kind = PickleItem::Kind;
using Meaning = PickleGlobal::Meaning;

constexpr unsigned kNewestProtocol = 2;
constexpr std::size_t kMaxDimensions = 1024;

struct KnownName {
  std::string_view module;
  std::string_view name;
  Meaning meaning;
  std::string_view words = {};
};

constexpr std::array kKnownNames = {
    KnownName{"collections", "OrderedDict", Meaning::ordered_dict},
    KnownName{"torch._utils", "_rebuild_tensor_v2", Meaning::rebuild_tensor_v2},
    KnownName{"torch._utils", "_rebuild_tensor_v3", Meaning::rebuild_tensor_v3},
    KnownName{"torch._utils", "_rebuild_parameter", Meaning::rebuild_parameter},
    KnownName{"torch._utils", "_rebuild_parameter_with_state",
              Meaning::rebuild_parameter_with_state},
    KnownName{"torch._tensor", "_rebuild_from_type_v2", Meaning::rebuild_from_type},
    KnownName{"torch.storage", "UntypedStorage", Meaning::untyped_storage},
    KnownName{"torch", "UntypedStorage", Meaning::untyped_storage},
    KnownName{"torch", "Size", Meaning::size},
    KnownName{"torch", "Tensor", Meaning::tensor_class},
    KnownName{"torch._tensor", "Tensor", Meaning::tensor_class},
    KnownName{"torch.nn.parameter", "Parameter", Meaning::tensor_class},
    KnownName{"copy_reg", "_reconstructor", Meaning::reconstructor},
    KnownName{"copyreg", "_reconstructor", Meaning::reconstructor},
    KnownName{"_codecs", "encode", Meaning::other_words, "bytes"},
    KnownName{"__builtin__", "bytes", Meaning::other_words, "bytes"},
    KnownName{"builtins", "bytes", Meaning::other_words, "bytes"},
    KnownName{"__builtin__", "bytearray", Meaning::other_words, "a bytearray"},
    KnownName{"builtins", "bytearray", Meaning::other_words, "a bytearray"},
    KnownName{"__builtin__", "set", Meaning::other_words, "a set"},
    KnownName{"builtins", "set", Meaning::other_words, "a set"},
    KnownName{"__builtin__", "frozenset", Meaning::other_words, "a frozenset"},
    KnownName{"builtins", "frozenset", Meaning::other_words, "a frozenset"},
    KnownName{"__builtin__", "complex", Meaning::other_words, "a complex number"},
    KnownName{"builtins", "complex", Meaning::other_words, "a complex number"},
    KnownName{"torch", "device", Meaning::other_words, "a torch.device"},
    KnownName{"torch._utils", "_rebuild_sparse_tensor", Meaning::other_words, "a sparse tensor"},
    KnownName{"torch._utils", "_rebuild_qtensor", Meaning::other_words, "a quantized tensor"},
    KnownName{"torch._utils", "_rebuild_nested_tensor", Meaning::other_words, "a nested tensor"},
    KnownName{"torch._utils", "_rebuild_meta_tensor_no_storage", Meaning::other_words,
              "a meta tensor"},
};

PickleGlobal meaning_of(std::string_view module, std::string_view name) {
  PickleGlobal global;
  global.module = module;
  global.name = name;
  for (const KnownName& known : kKnownNames) {
    if (known.module == module && known.name == name) {
      global.meaning = known.meaning;
      global.words = known.words;
      return global;
    }
  }
  if (module != "torch") return global;
  if (const auto dtype = dtype_from_typed_storage(name)) {
    global.meaning = Meaning::typed_storage;
    global.dtype = *dtype;
  } else if (const auto plain = dtype_from_name(name)) {
    global.meaning = Meaning::dtype;
    global.dtype = *plain;
  }
  return global;
}

/// A name from a file, fit for a message.
std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 100;
  std::string out;
  for (const char c : text.substr(0, kLongest)) out += c >= ' ' && c <= '~' ? c : '?';
  if (text.size() > kLongest) out += "...";
  return out;
}

std::string qualified(const PickleGlobal& global) {
  return shown(global.module) + "." + shown(global.name);
}

class Machine {
 public:
  Machine(std::span<const std::byte> pickle, const std::string& path)
      : pickle_(pickle), path_(path) {}

  PickleProgram run() {
    for (;;) {
      opcode_at_ = at_;
      const auto opcode = static_cast<Opcode>(u8());
      if (opcode == Opcode::stop) break;
      execute(opcode);
    }
    if (stack_.size() != 1) damaged(fmt::format("{} values are left at the end", stack_.size()));
    if (at_ != pickle_.size()) damaged("bytes follow the end");
    return {std::move(objects_), stack_.back()};
  }

 private:
  [[noreturn]] void fail(ErrorCode code, const std::string& what) const {
    throw Error(code, "read", path_, fmt::format("record data.pkl, byte {}: {}", opcode_at_, what));
  }
  [[noreturn]] void damaged(const std::string& what) const { fail(ErrorCode::damaged, what); }

  // Operands.

  std::span<const std::byte> take(std::uint64_t size) {
    if (size > pickle_.size() - at_) damaged("the pickle ends in the middle of a value");
    const auto bytes = pickle_.subspan(at_, size);
    at_ += size;
    return bytes;
  }
  template <class T>
  T little() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::uint8_t u8() { return little<std::uint8_t>(); }
  std::string_view text(std::uint64_t size) {
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string_view line() {
    const std::string_view rest(reinterpret_cast<const char*>(pickle_.data()) + at_,
                                pickle_.size() - at_);
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) damaged("a name has no end");
    at_ += end + 1;
    return rest.substr(0, end);
  }

  // The stack. A mark is a height below which nothing may be taken until it is gone.

  void push(Kind kind, std::uint64_t bits = 0) { stack_.push_back({kind, bits}); }
  [[nodiscard]] std::size_t floor() const noexcept { return marks_.empty() ? 0 : marks_.back(); }
  PickleItem& top() {
    if (stack_.size() <= floor()) damaged("a value is missing");
    return stack_.back();
  }
  PickleItem pop() {
    const PickleItem item = top();
    stack_.pop_back();
    return item;
  }
  /// The items above the last mark, which is removed. The caller shrinks the stack to `.begin`.
  PickleObjects::Range above_mark() {
    if (marks_.empty()) damaged("a mark is missing");
    const std::size_t begin = marks_.back();
    marks_.pop_back();
    return {begin, stack_.size() - begin};
  }

  // Making objects.

  template <class T>
  static std::uint64_t add(std::vector<T>& table, T object) {
    table.push_back(std::move(object));
    return table.size() - 1;
  }
  PickleItem unsupported(std::string what) {
    return {Kind::unsupported, add(objects_.unsupported, std::move(what))};
  }
  void push_tuple(std::size_t begin) {
    const std::size_t first = objects_.tuple_items.size();
    objects_.tuple_items.insert(objects_.tuple_items.end(),
                                stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
    push(Kind::tuple, add(objects_.tuples, {first, objects_.tuple_items.size() - first}));
  }
  void push_short_tuple(std::size_t count) {
    if (stack_.size() - floor() < count) damaged("a value is missing");
    push_tuple(stack_.size() - count);
  }
  void push_string(std::string_view text) {
    if (is_utf8(text)) {
      push(Kind::string, add(objects_.strings, text));
    } else {
      stack_.push_back(unsupported("a string that is not UTF-8"));
    }
  }
  void push_long(std::uint64_t size) {
    const auto bytes = take(size);
    const bool negative = !bytes.empty() && (bytes.back() & std::byte{0x80}) != std::byte{0};
    std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), std::min<std::size_t>(bytes.size(), sizeof value));
    const auto fill = negative ? std::byte{0xFF} : std::byte{0};
    const bool fits =
        bytes.size() <= sizeof value || (std::all_of(bytes.begin() + sizeof value, bytes.end(),
                                                     [fill](std::byte b) { return b == fill; }) &&
                                         (std::bit_cast<std::int64_t>(value) < 0) == negative);
    if (fits) {
      push(Kind::integer, value);
    } else {
      stack_.push_back(unsupported("an integer of more than 64 bits"));
    }
  }

  void remember(std::uint64_t number) {
    // Each entry costs the pickle two bytes or more, so an honest one never counts this far.
    if (number >= pickle_.size()) damaged(fmt::format("memo number {} is out of range", number));
    if (number >= memo_.size()) {
      if (number >= memo_.capacity()) memo_.reserve(std::min(pickle_.size(), 2 * number + 64));
      memo_.resize(number + 1);
    }
    memo_[number] = top();
  }
  void recall(std::uint64_t number) {
    if (number >= memo_.size() || memo_[number].is(Kind::absent)) {
      damaged(fmt::format("memo number {} was never set", number));
    }
    stack_.push_back(memo_[number]);
  }

  // Filling objects. What has no counterpart swallows what is put into it.

  void append_all(const PickleItem& target, std::span<const PickleItem> items) {
    if (target.is(Kind::list)) {
      auto& list = objects_.lists[target.index()];
      list.insert(list.end(), items.begin(), items.end());
    } else if (!target.is(Kind::unsupported)) {
      damaged("items are appended to " + objects_.describe(target));
    }
  }
  void set_all(const PickleItem& target, std::span<const PickleItem> items) {
    if (items.size() % 2 != 0) damaged("a key has no value");
    if (target.is(Kind::dict)) {
      auto& dict = objects_.dicts[target.index()];
      dict.insert(dict.end(), items.begin(), items.end());
    } else if (!target.is(Kind::unsupported)) {
      damaged("items are set in " + objects_.describe(target));
    }
  }
  void build(const PickleItem& target) {
    if (target.is(Kind::tensor)) {
      objects_.tensors[target.index()].has_state = true;
    } else if (!target.is(Kind::dict) && !target.is(Kind::unsupported)) {
      // A dict's attributes, such as a module's version numbers, are not part of the state.
      damaged("attributes are set on " + objects_.describe(target));
    }
  }

  // Calls.

  PickleItem persistent(const PickleItem& id) {
    if (!id.is(Kind::tuple)) damaged("a persistent id is no tuple");
    const auto parts = objects_.items(id);
    if (parts.size() != 5 || !parts[0].is(Kind::string) ||
        objects_.strings[parts[0].index()] != "storage" || !parts[1].is(Kind::global) ||
        !parts[2].is(Kind::string) || !parts[3].is(Kind::string) || !parts[4].is(Kind::integer)) {
      damaged("a persistent id does not describe a storage");
    }
    const PickleGlobal& type = objects_.globals[parts[1].index()];
    PickleStorage storage;
    storage.key = objects_.strings[parts[2].index()];
    storage.location = objects_.strings[parts[3].index()];
    const std::int64_t count = parts[4].integer();
    std::optional<std::uint64_t> bytes;
    if (type.meaning == Meaning::untyped_storage) {
      bytes = static_cast<std::uint64_t>(count);
    } else if (type.meaning == Meaning::typed_storage) {
      storage.dtype = type.dtype;
      bytes = base::checked_mul(static_cast<std::uint64_t>(count), element_size(type.dtype));
    } else {
      return unsupported("a storage of type " + qualified(type));
    }
    if (count < 0 || !bytes) damaged(fmt::format("a storage of {} elements", count));
    storage.bytes = *bytes;
    return {Kind::storage, add(objects_.storages, storage)};
  }

  PickleItem call(const PickleItem& callee, const PickleItem& arguments) {
    if (callee.is(Kind::unsupported)) return callee;
    if (!callee.is(Kind::global)) damaged("a call of " + objects_.describe(callee));
    if (!arguments.is(Kind::tuple)) damaged("a call without a tuple of arguments");
    const PickleGlobal& global = objects_.globals[callee.index()];
    const auto given = objects_.items(arguments);
    switch (global.meaning) {
      case Meaning::ordered_dict:
        return ordered_dict(given);
      case Meaning::rebuild_tensor_v2:
      case Meaning::rebuild_tensor_v3:
      case Meaning::rebuild_parameter:
        return rebuild(global.meaning, given);
      case Meaning::rebuild_parameter_with_state:
        require_count(given, 4, 4);
        if (!is_empty(given[3])) return unsupported("a parameter with Python attributes");
        return rebuild(Meaning::rebuild_parameter, given.first(3));
      case Meaning::rebuild_from_type:
        return rebuild_from_type(given);
      case Meaning::size:
        if (given.size() == 1 && given[0].is(Kind::tuple)) return given[0];
        damaged("arguments of torch.Size");
      case Meaning::other_words:
        return unsupported(std::string(global.words));
      case Meaning::reconstructor:
        if (!given.empty() && given[0].is(Kind::global)) return object_of(given[0]);
        damaged("arguments of a constructor");
      default:
        return unsupported("an object made by " + qualified(global));
    }
  }

  PickleItem object_of(const PickleItem& type) {
    return unsupported("an object of class " + qualified(objects_.globals[type.index()]));
  }

  PickleItem ordered_dict(std::span<const PickleItem> given) {
    std::vector<PickleItem> items;
    if (!given.empty()) {
      // Python 2 wrote the items as one list of pairs.
      if (given.size() != 1 || !given[0].is(Kind::list)) damaged("arguments of an OrderedDict");
      for (const PickleItem& entry : objects_.lists[given[0].index()]) {
        const auto pair = entry.is(Kind::tuple) ? objects_.items(entry)
                          : entry.is(Kind::list)
                              ? std::span<const PickleItem>(objects_.lists[entry.index()])
                              : std::span<const PickleItem>();
        if (pair.size() != 2) damaged("an item of an OrderedDict is no pair");
        items.insert(items.end(), pair.begin(), pair.end());
      }
      // One list could be copied by a call every few bytes; an honest one is used once.
      copied_pairs_ += items.size() / 2;
      if (copied_pairs_ > pickle_.size()) damaged("OrderedDicts are copied again and again");
    }
    return {Kind::dict, add(objects_.dicts, std::move(items))};
  }

  void require_count(std::span<const PickleItem> given, std::size_t least, std::size_t most) {
    if (given.size() < least || given.size() > most) {
      damaged(fmt::format("a tensor is described by {} values", given.size()));
    }
  }
  bool is_empty(const PickleItem& item) const {
    return item.is(Kind::none) || (item.is(Kind::dict) && objects_.dicts[item.index()].empty()) ||
           (item.is(Kind::tuple) && objects_.items(item).empty());
  }
  void require_integers(const PickleItem& item, const char* what) {
    if (!item.is(Kind::tuple)) damaged(fmt::format("a tensor's {} is no tuple", what));
    if (objects_.items(item).size() > kMaxDimensions) {
      damaged(fmt::format("a tensor of {} dimensions", objects_.items(item).size()));
    }
    for (const PickleItem& number : objects_.items(item)) {
      if (!number.is(Kind::integer)) damaged(fmt::format("a tensor's {} holds no integer", what));
    }
  }

  PickleItem rebuild_from_type(std::span<const PickleItem> given) {
    require_count(given, 4, 4);
    if (!given[0].is(Kind::global) || !given[1].is(Kind::global) || !given[2].is(Kind::tuple)) {
      damaged("a tensor's type is described wrongly");
    }
    const PickleGlobal& type = objects_.globals[given[1].index()];
    if (type.meaning != Meaning::tensor_class) {
      return unsupported("a tensor of class " + qualified(type));
    }
    if (!is_empty(given[3])) return unsupported("a tensor with Python attributes");
    const PickleGlobal& function = objects_.globals[given[0].index()];
    // Not `call`: a pickle could nest this without end.
    if (function.meaning != Meaning::rebuild_tensor_v2 &&
        function.meaning != Meaning::rebuild_tensor_v3) {
      return unsupported("a tensor made by " + qualified(function));
    }
    return rebuild(function.meaning, objects_.items(given[2]));
  }

  PickleItem rebuild(Meaning how, std::span<const PickleItem> given) {
    PickleTensor tensor;
    if (how == Meaning::rebuild_parameter) {
      // data, requires_grad, backward hooks
      require_count(given, 3, 3);
      if (given[0].is(Kind::unsupported)) return given[0];
      if (!given[0].is(Kind::tensor) || !given[1].is(Kind::boolean)) {
        damaged("a parameter without a tensor");
      }
      tensor = objects_.tensors[given[0].index()];
      tensor.requires_grad = given[1].boolean();
      return {Kind::tensor, add(objects_.tensors, tensor)};
    }

    // storage, offset, sizes, strides, requires_grad, backward hooks (, dtype) (, metadata)
    const bool v3 = how == Meaning::rebuild_tensor_v3;
    const std::size_t fixed = v3 ? 7 : 6;
    require_count(given, fixed, fixed + 1);
    if (given[0].is(Kind::unsupported)) return given[0];
    if (!given[0].is(Kind::storage) || !given[1].is(Kind::integer) || !given[4].is(Kind::boolean)) {
      damaged("a tensor is described by values of the wrong kinds");
    }
    require_integers(given[2], "size");
    require_integers(given[3], "stride");
    const PickleStorage& storage = objects_.storages[given[0].index()];
    if (v3) {
      if (!given[6].is(Kind::global)) damaged("a tensor's dtype is missing");
      const PickleGlobal& dtype = objects_.globals[given[6].index()];
      if (dtype.meaning != Meaning::dtype) return unsupported("a tensor of " + qualified(dtype));
      tensor.dtype = dtype.dtype;
    } else {
      // An untyped storage counts as bytes, as in torch.
      tensor.dtype = storage.dtype.value_or(DType::uint8);
    }
    tensor.storage = given[0].index();
    tensor.offset = given[1].integer();
    tensor.sizes = given[2];
    tensor.strides = given[3];
    tensor.requires_grad = given[4].boolean();
    if (given.size() > fixed) set_bits(tensor, given[fixed]);
    return {Kind::tensor, add(objects_.tensors, tensor)};
  }

  void set_bits(PickleTensor& tensor, const PickleItem& metadata) {
    if (metadata.is(Kind::none)) return;
    if (!metadata.is(Kind::dict)) damaged("a tensor's metadata is no dict");
    const auto& items = objects_.dicts[metadata.index()];
    if (items.size() > 4) damaged("a tensor's metadata has an unknown entry");
    for (std::size_t i = 0; i < items.size(); i += 2) {
      const std::string_view key =
          items[i].is(Kind::string) ? objects_.strings[items[i].index()] : std::string_view{};
      if ((key != "conj" && key != "neg") || !items[i + 1].is(Kind::boolean)) {
        damaged("a tensor's metadata has an unknown entry");
      }
      (key == "conj" ? tensor.conj : tensor.neg) = items[i + 1].boolean();
    }
  }

  void execute(Opcode opcode);

  std::span<const std::byte> pickle_;
  const std::string& path_;
  std::size_t at_ = 0;
  std::size_t opcode_at_ = 0;
  std::uint64_t copied_pairs_ = 0;
  PickleObjects objects_;
  std::vector<PickleItem> stack_;
  std::vector<std::size_t> marks_;
  std::vector<PickleItem> memo_;
};

void Machine::execute(Opcode opcode) {
  switch (opcode) {
    case Opcode::proto:
      if (const unsigned protocol = u8(); protocol > kNewestProtocol) {
        fail(ErrorCode::unsupported_value,
             fmt::format("pickle protocol {} is newer than {}", protocol, kNewestProtocol));
      }
      return;
    case Opcode::mark:
      marks_.push_back(stack_.size());
      return;
    case Opcode::pop:
      // As in Python, an open mark is what is popped if nothing is above it.
      if (!marks_.empty() && stack_.size() == marks_.back()) {
        marks_.pop_back();
      } else {
        (void)pop();
      }
      return;
    case Opcode::pop_mark:
      stack_.resize(above_mark().begin);
      return;
    case Opcode::dup:
      stack_.emplace_back(top());
      return;

    case Opcode::none:
      return push(Kind::none);
    case Opcode::newtrue:
      return push(Kind::boolean, 1);
    case Opcode::newfalse:
      return push(Kind::boolean, 0);
    case Opcode::binint:
      return push(Kind::integer,
                  static_cast<std::uint64_t>(static_cast<std::int64_t>(little<std::int32_t>())));
    case Opcode::binint1:
      return push(Kind::integer, u8());
    case Opcode::binint2:
      return push(Kind::integer, little<std::uint16_t>());
    case Opcode::long1:
      return push_long(u8());
    case Opcode::long4: {
      const auto size = little<std::int32_t>();
      if (size < 0) damaged("an integer of negative length");
      return push_long(static_cast<std::uint64_t>(size));
    }
    case Opcode::binfloat:
      return push(Kind::real, __builtin_bswap64(little<std::uint64_t>()));
    case Opcode::binunicode:
      return push_string(text(little<std::uint32_t>()));
    case Opcode::short_binstring:
      return push_string(text(u8()));
    case Opcode::binstring: {
      const auto size = little<std::int32_t>();
      if (size < 0) damaged("a string of negative length");
      return push_string(text(static_cast<std::uint64_t>(size)));
    }

    case Opcode::empty_tuple:
      return push_short_tuple(0);
    case Opcode::tuple1:
      return push_short_tuple(1);
    case Opcode::tuple2:
      return push_short_tuple(2);
    case Opcode::tuple3:
      return push_short_tuple(3);
    case Opcode::tuple:
      return push_tuple(above_mark().begin);
    case Opcode::empty_list:
      return push(Kind::list, add(objects_.lists, {}));
    case Opcode::empty_dict:
      return push(Kind::dict, add(objects_.dicts, {}));

    case Opcode::append: {
      const PickleItem item = pop();
      return append_all(top(), {&item, 1});
    }
    case Opcode::appends: {
      const PickleObjects::Range range = above_mark();
      const std::vector<PickleItem> items(stack_.begin() + static_cast<std::ptrdiff_t>(range.begin),
                                          stack_.end());
      stack_.resize(range.begin);
      return append_all(top(), items);
    }
    case Opcode::setitem: {
      const PickleItem value = pop();
      const PickleItem key = pop();
      const std::array<PickleItem, 2> items{key, value};
      return set_all(top(), items);
    }
    case Opcode::setitems: {
      const PickleObjects::Range range = above_mark();
      const std::vector<PickleItem> items(stack_.begin() + static_cast<std::ptrdiff_t>(range.begin),
                                          stack_.end());
      stack_.resize(range.begin);
      return set_all(top(), items);
    }

    case Opcode::put:
      return remember(u8());
    case Opcode::long_put:
      return remember(little<std::uint32_t>());
    case Opcode::get:
      return recall(u8());
    case Opcode::long_get:
      return recall(little<std::uint32_t>());

    case Opcode::global: {
      const std::string_view module = line();
      const std::string_view name = line();
      return push(Kind::global, add(objects_.globals, meaning_of(module, name)));
    }
    case Opcode::persistent_id: {
      const PickleItem id = pop();
      stack_.push_back(persistent(id));
      return;
    }
    case Opcode::reduce: {
      const PickleItem arguments = pop();
      const PickleItem callee = pop();
      stack_.push_back(call(callee, arguments));
      return;
    }
    case Opcode::newobj: {
      const PickleItem arguments = pop();
      const PickleItem type = pop();
      if (!type.is(Kind::global) || !arguments.is(Kind::tuple)) damaged("an object of no class");
      stack_.push_back(object_of(type));
      return;
    }
    case Opcode::build:
      (void)pop();
      return build(top());

    case Opcode::stop:  // ends `run`
      break;
  }
  damaged(fmt::format("unknown opcode 0x{:02x}", static_cast<unsigned>(opcode)));
}

}  // namespace

std::string PickleObjects::describe(const PickleItem& item) const {
  switch (item.kind) {
    case Kind::absent:
      return "nothing";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "a bool";
    case Kind::integer:
      return "an integer";
    case Kind::real:
      return "a float";
    case Kind::string:
      return "a string";
    case Kind::tuple:
      return "a tuple";
    case Kind::list:
      return "a list";
    case Kind::dict:
      return "a dict";
    case Kind::tensor:
      return "a tensor";
    case Kind::storage:
      return "a storage without a tensor";
    case Kind::global:
      return "the Python object " + qualified(globals[item.index()]);
    case Kind::unsupported:
      return unsupported[item.index()];
  }
  return "nothing";
}

PickleProgram run_pickle(std::span<const std::byte> pickle, const std::string& path) {
  return Machine(pickle, path).run();
}

}  // namespace ckptring::plan
