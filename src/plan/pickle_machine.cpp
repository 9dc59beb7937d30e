#include "plan/pickle_machine.h"

#include "base/align.h"
#include "plan/pickle_opcodes.h"
#include "plan/record_names.h"
#include "plan/utf8.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <utility>

namespace ckptring::plan {
namespace {

using Kind = PickleItem::Kind;
using Meaning = NameMeaning::Kind;
using Range = PickleObjects::Range;

constexpr unsigned kNewestProtocol = 2;

class Machine {
 public:
  Machine(std::vector<std::byte> pickle, const std::string& path) : path_(path) {
    objects_.pickle = std::move(pickle);
    pickle_ = objects_.pickle;
    if (pickle_.size() > kMaxPickle) damaged("it is longer than a pickle may be");
  }

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
  using Items = std::deque<PickleItem>;

  [[noreturn]] void fail(ErrorCode code, const std::string& what) const {
    throw Error(code, "read", path_, fmt::format("record data.pkl, byte {}: {}", opcode_at_, what));
  }
  [[noreturn]] void damaged(const std::string& what) const { fail(ErrorCode::damaged, what); }

  // Operands.

  /// The place of the next bytes, which are passed.
  PickleObjects::Text take(std::uint64_t size) {
    if (size > pickle_.size() - at_) damaged("the pickle ends in the middle of a value");
    const PickleObjects::Text place{static_cast<std::uint32_t>(at_),
                                    static_cast<std::uint32_t>(size)};
    at_ += size;
    return place;
  }
  template <class T>
  T little() {
    T value;
    std::memcpy(&value, pickle_.data() + take(sizeof value).begin, sizeof value);
    return value;
  }
  std::uint8_t u8() { return little<std::uint8_t>(); }
  PickleObjects::Text line() {
    const std::string_view rest(reinterpret_cast<const char*>(pickle_.data()) + at_,
                                pickle_.size() - at_);
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) damaged("a name has no end");
    const PickleObjects::Text place = take(end);
    ++at_;
    return place;
  }

  // The stack. A mark is a height below which nothing may be taken until it is gone.

  void push(Kind kind, std::uint32_t index = 0) { stack_.push_back({kind, index}); }
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
  /// Where the items above the last mark begin; the mark is removed.
  std::size_t above_mark() {
    if (marks_.empty()) damaged("a mark is missing");
    const std::size_t begin = marks_.back();
    marks_.pop_back();
    return begin;
  }

  // Making objects.

  template <class T>
  static std::uint32_t add(std::deque<T>& table, T object) {
    table.push_back(std::move(object));
    return static_cast<std::uint32_t>(table.size() - 1);
  }
  PickleItem unsupported(std::string_view words, std::optional<std::uint32_t> global = {}) {
    return {Kind::unsupported, add(objects_.unsupported, {words, global})};
  }
  PickleItem number(std::int64_t value) { return {Kind::integer, add(objects_.integers, value)}; }

  /// The items of the stack from `begin` on become a run of the table.
  Range move_items(std::size_t begin) {
    const Range range{static_cast<std::uint32_t>(objects_.items.size()),
                      static_cast<std::uint32_t>(stack_.size() - begin)};
    objects_.items.insert(objects_.items.end(), stack_.begin() + static_cast<std::ptrdiff_t>(begin),
                          stack_.end());
    stack_.resize(begin);
    return range;
  }
  void push_tuple(std::size_t begin) {
    const Range range = move_items(begin);
    push(Kind::tuple, add(objects_.tuples, {range}));
  }
  void push_short_tuple(std::size_t count) {
    if (stack_.size() - floor() < count) damaged("a value is missing");
    push_tuple(stack_.size() - count);
  }
  void push_string(PickleObjects::Text place) {
    if (is_utf8(objects_.text(place))) {
      push(Kind::string, add(objects_.strings, place));
    } else {
      stack_.push_back(unsupported("a string that is not UTF-8"));
    }
  }
  void push_long(std::uint64_t size) {
    const auto bytes = pickle_.subspan(take(size).begin, size);
    const bool negative = !bytes.empty() && (bytes.back() & std::byte{0x80}) != std::byte{0};
    std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), std::min<std::size_t>(bytes.size(), sizeof value));
    const auto fill = negative ? std::byte{0xFF} : std::byte{0};
    const bool fits =
        bytes.size() <= sizeof value || (std::all_of(bytes.begin() + sizeof value, bytes.end(),
                                                     [fill](std::byte b) { return b == fill; }) &&
                                         (std::bit_cast<std::int64_t>(value) < 0) == negative);
    stack_.push_back(fits ? number(std::bit_cast<std::int64_t>(value))
                          : unsupported("an integer of more than 64 bits"));
  }

  void remember(std::uint32_t number) {
    // Each entry has cost the pickle a value and two bytes: an honest one has not counted so far.
    if (number >= at_ / 2) damaged(fmt::format("memo number {} is out of range", number));
    if (number >= memo_.size()) memo_.resize(number + std::size_t{1});
    memo_[number] = top();
  }
  void recall(std::uint32_t number) {
    if (number >= memo_.size() || memo_[number].is(Kind::absent)) {
      damaged(fmt::format("memo number {} was never set", number));
    }
    stack_.push_back(memo_[number]);
  }

  // Filling objects. What has no counterpart swallows what is put into it.

  void put(PickleObjects::Container& container, Range range) {
    if (range.count == 0) return;
    if (container.last != 0) {
      // One after the other, as lists are filled one by one.
      Range& last = objects_.segments[container.last - 1].range;
      if (last.begin + last.count == range.begin) {
        last.count += range.count;
        return;
      }
    }
    const std::uint32_t added = add(objects_.segments, {range}) + 1;
    (container.last == 0 ? container.first : objects_.segments[container.last - 1].next) = added;
    container.last = added;
  }
  /// The items of the stack from `begin` on are put into what lies below them.
  void append_all(std::size_t begin) {
    const Range range = move_items(begin);
    const PickleItem target = top();
    if (target.is(Kind::list)) {
      put(objects_.lists[target.index], range);
    } else if (!target.is(Kind::unsupported)) {
      damaged("items are appended to " + objects_.describe(target));
    }
  }
  void set_all(std::size_t begin) {
    if ((stack_.size() - begin) % 2 != 0) damaged("a key has no value");
    const Range range = move_items(begin);
    const PickleItem target = top();
    if (target.is(Kind::dict)) {
      put(objects_.dicts[target.index], range);
    } else if (!target.is(Kind::unsupported)) {
      damaged("items are set in " + objects_.describe(target));
    }
  }
  /// Where the last `count` items of the stack begin.
  std::size_t last(std::size_t count) const {
    if (stack_.size() - floor() < count) damaged("a value is missing");
    return stack_.size() - count;
  }
  void build(const PickleItem& target) {
    if (target.is(Kind::tensor)) {
      objects_.tensors[target.index].has_state = true;
    } else if (!target.is(Kind::dict) && !target.is(Kind::unsupported)) {
      // A dict's attributes, such as a module's version numbers, are not part of the state.
      damaged("attributes are set on " + objects_.describe(target));
    }
  }

  // Calls. What is given lies in the table of items.

  const PickleItem& given(Range range, std::uint32_t at) const {
    return objects_.items[range.begin + at];
  }

  PickleItem persistent(const PickleItem& id) {
    if (!id.is(Kind::tuple)) damaged("a persistent id is no tuple");
    const Range parts = objects_.items_of_tuple(id);
    const auto part = [&](std::uint32_t at) -> const PickleItem& { return given(parts, at); };
    if (parts.count != 5 || !part(0).is(Kind::string) ||
        objects_.string(part(0).index) != "storage" || !part(1).is(Kind::global) ||
        !part(2).is(Kind::string) || !part(3).is(Kind::string) || !part(4).is(Kind::integer)) {
      damaged("a persistent id does not describe a storage");
    }
    const NameMeaning& type = objects_.globals[part(1).index].meaning;
    PickleObjects::Storage storage;
    storage.key = part(2).index;
    storage.location = part(3).index;
    const std::int64_t count = objects_.integers[part(4).index];
    std::optional<std::uint64_t> bytes;
    if (type.kind == Meaning::untyped_storage) {
      bytes = static_cast<std::uint64_t>(count);
    } else if (type.kind == Meaning::typed_storage) {
      storage.dtype = type.dtype;
      bytes = base::checked_mul(static_cast<std::uint64_t>(count), element_size(type.dtype));
    } else {
      return unsupported("a storage of type ", part(1).index);
    }
    if (count < 0 || !bytes) damaged(fmt::format("a storage of {} elements", count));
    storage.bytes = *bytes;
    return {Kind::storage, add(objects_.storages, storage)};
  }

  PickleItem call(const PickleItem& callee, const PickleItem& arguments) {
    if (callee.is(Kind::unsupported)) return callee;
    if (!callee.is(Kind::global)) damaged("a call of " + objects_.describe(callee));
    if (!arguments.is(Kind::tuple)) damaged("a call without a tuple of arguments");
    const NameMeaning& meaning = objects_.globals[callee.index].meaning;
    const Range range = objects_.items_of_tuple(arguments);
    switch (meaning.kind) {
      case Meaning::ordered_dict:
        return ordered_dict(range);
      case Meaning::rebuild_tensor_v2:
      case Meaning::rebuild_tensor_v3:
        return rebuild_tensor(meaning.kind, range);
      case Meaning::rebuild_parameter:
        require_count(range, 3, 3);
        return rebuild_parameter(range);
      case Meaning::rebuild_parameter_with_state:
        require_count(range, 4, 4);
        if (!is_empty(given(range, 3))) return unsupported("a parameter with Python attributes");
        return rebuild_parameter(range);
      case Meaning::rebuild_from_type:
        return rebuild_from_type(range);
      case Meaning::size:
        if (range.count == 1 && given(range, 0).is(Kind::tuple)) return given(range, 0);
        damaged("arguments of torch.Size");
      case Meaning::other_words:
        return unsupported(meaning.words);
      case Meaning::reconstructor:
        if (range.count > 0 && given(range, 0).is(Kind::global)) return object_of(given(range, 0));
        damaged("arguments of a constructor");
      default:
        return unsupported("an object made by ", callee.index);
    }
  }

  PickleItem object_of(const PickleItem& type) {
    return unsupported("an object of class ", type.index);
  }

  PickleItem ordered_dict(Range range) {
    PickleObjects::Container dict;
    if (range.count > 0) {
      // Python 2 wrote the items as one list of pairs.
      if (range.count != 1 || !given(range, 0).is(Kind::list)) {
        damaged("arguments of an OrderedDict");
      }
      const std::size_t begin = stack_.size();
      objects_.for_each(objects_.lists[given(range, 0).index], [&](const PickleItem& entry) {
        push_pair(entry);
        // One list could be copied by a call every few bytes; an honest one is used once.
        if (++copied_pairs_ > pickle_.size() / 4) {
          damaged("OrderedDicts are copied again and again");
        }
      });
      put(dict, move_items(begin));
    }
    return {Kind::dict, add(objects_.dicts, dict)};
  }
  void push_pair(const PickleItem& entry) {
    std::size_t count = 0;
    const auto push_item = [&](const PickleItem& item) {
      if (++count <= 2) stack_.push_back(item);
    };
    if (entry.is(Kind::tuple)) {
      const Range range = objects_.items_of_tuple(entry);
      if (range.count == 2) {
        push_item(given(range, 0));
        push_item(given(range, 1));
      }
    } else if (entry.is(Kind::list)) {
      const PickleObjects::Container& list = objects_.lists[entry.index];
      // Only as long as a pair may be: a list could be met again and again.
      if (list.first != 0 && objects_.segments[list.first - 1].range.count <= 2) {
        objects_.for_each(list, push_item);
      }
    }
    if (count != 2) damaged("an item of an OrderedDict is no pair");
  }

  void require_count(Range range, std::uint32_t least, std::uint32_t most) const {
    if (range.count < least || range.count > most) {
      damaged(fmt::format("a tensor is described by {} values", range.count));
    }
  }
  [[nodiscard]] bool is_empty(const PickleItem& item) const {
    return item.is(Kind::none) || (item.is(Kind::dict) && objects_.dicts[item.index].first == 0) ||
           (item.is(Kind::tuple) && objects_.items_of_tuple(item).count == 0);
  }
  void require_integers(const PickleItem& item, const char* what) {
    if (!item.is(Kind::tuple)) damaged(fmt::format("a tensor's {} is no tuple", what));
    PickleObjects::Tuple& tuple = objects_.tuples[item.index];
    if (tuple.integers) return;  // a long one could be met again and again
    for (std::uint32_t i = 0; i < tuple.range.count; ++i) {
      if (!given(tuple.range, i).is(Kind::integer)) {
        damaged(fmt::format("a tensor's {} holds no integer", what));
      }
    }
    tuple.integers = true;
  }

  PickleItem rebuild_from_type(Range range) {
    require_count(range, 4, 4);
    const PickleItem& function = given(range, 0);
    const PickleItem& type = given(range, 1);
    if (!function.is(Kind::global) || !type.is(Kind::global) || !given(range, 2).is(Kind::tuple)) {
      damaged("a tensor's type is described wrongly");
    }
    if (objects_.globals[type.index].meaning.kind != Meaning::tensor_class) {
      return unsupported("a tensor of class ", type.index);
    }
    if (!is_empty(given(range, 3))) return unsupported("a tensor with Python attributes");
    // Not `call`: a pickle could nest this without end.
    const Meaning how = objects_.globals[function.index].meaning.kind;
    if (how != Meaning::rebuild_tensor_v2 && how != Meaning::rebuild_tensor_v3) {
      return unsupported("a tensor made by ", function.index);
    }
    return rebuild_tensor(how, objects_.items_of_tuple(given(range, 2)));
  }

  /// data, requires_grad, backward hooks
  PickleItem rebuild_parameter(Range range) {
    const PickleItem data = given(range, 0);
    if (data.is(Kind::unsupported)) return data;
    if (!data.is(Kind::tensor) || !given(range, 1).is(Kind::boolean)) {
      damaged("a parameter without a tensor");
    }
    PickleObjects::Tensor tensor = objects_.tensors[data.index];
    tensor.requires_grad = given(range, 1).boolean();
    return {Kind::tensor, add(objects_.tensors, tensor)};
  }

  /// storage, offset, sizes, strides, requires_grad, backward hooks (, dtype) (, metadata)
  PickleItem rebuild_tensor(Meaning how, Range range) {
    const bool v3 = how == Meaning::rebuild_tensor_v3;
    const std::uint32_t fixed = v3 ? 7 : 6;
    require_count(range, fixed, fixed + 1);
    const PickleItem storage = given(range, 0);
    if (storage.is(Kind::unsupported)) return storage;
    if (!storage.is(Kind::storage) || !given(range, 1).is(Kind::integer) ||
        !given(range, 4).is(Kind::boolean)) {
      damaged("a tensor is described by values of the wrong kinds");
    }
    require_integers(given(range, 2), "size");
    require_integers(given(range, 3), "stride");
    PickleObjects::Tensor tensor;
    if (v3) {
      const PickleItem& dtype = given(range, 6);
      if (!dtype.is(Kind::global)) damaged("a tensor's dtype is missing");
      const NameMeaning& meaning = objects_.globals[dtype.index].meaning;
      if (meaning.kind != Meaning::dtype) return unsupported("a tensor of ", dtype.index);
      tensor.dtype = meaning.dtype;
    } else {
      // An untyped storage counts as bytes, as in torch.
      tensor.dtype = objects_.storages[storage.index].dtype.value_or(DType::uint8);
    }
    tensor.storage = storage.index;
    tensor.offset = objects_.integers[given(range, 1).index];
    tensor.sizes = given(range, 2).index;
    tensor.strides = given(range, 3).index;
    tensor.requires_grad = given(range, 4).boolean();
    if (range.count > fixed) set_bits(tensor, given(range, fixed));
    return {Kind::tensor, add(objects_.tensors, tensor)};
  }

  void set_bits(PickleObjects::Tensor& tensor, const PickleItem& metadata) const {
    if (metadata.is(Kind::none)) return;
    if (!metadata.is(Kind::dict)) damaged("a tensor's metadata is no dict");
    bool* bit = nullptr;  // that the key at hand means
    std::size_t entries = 0;
    objects_.for_each(objects_.dicts[metadata.index], [&](const PickleItem& item) {
      const auto unknown = [&] { damaged("a tensor's metadata has an unknown entry"); };
      if (bit == nullptr) {
        const std::string_view key =
            item.is(Kind::string) ? objects_.string(item.index) : std::string_view();
        bit = key == "conj" ? &tensor.conj : key == "neg" ? &tensor.neg : nullptr;
        if (bit == nullptr || ++entries > 2) unknown();
        return;
      }
      if (!item.is(Kind::boolean)) unknown();
      *std::exchange(bit, nullptr) = item.boolean();
    });
  }

  void execute(Opcode opcode);
  [[noreturn]] void unknown(Opcode opcode) const;

  const std::string& path_;
  PickleObjects objects_;
  std::span<const std::byte> pickle_;
  std::size_t at_ = 0;
  std::size_t opcode_at_ = 0;
  std::uint64_t copied_pairs_ = 0;
  Items stack_;
  std::deque<std::uint32_t> marks_;
  std::deque<PickleItem> memo_;
};

void Machine::execute(Opcode opcode) {
  switch (opcode) {
    case Opcode::proto:
      if (const unsigned protocol = u8(); protocol > kNewestProtocol) {
        fail(ErrorCode::unsupported_value,
             fmt::format("pickle protocol {} is newer than {}, which torch.save writes unless it "
                         "is told otherwise",
                         protocol, kNewestProtocol));
      }
      return;
    case Opcode::mark:
      marks_.push_back(static_cast<std::uint32_t>(stack_.size()));
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
      stack_.resize(above_mark());
      return;
    case Opcode::dup:
      stack_.push_back(top());
      return;

    case Opcode::none:
      return push(Kind::none);
    case Opcode::newtrue:
      return push(Kind::boolean, 1);
    case Opcode::newfalse:
      return push(Kind::boolean, 0);
    case Opcode::binint:
      stack_.push_back(number(little<std::int32_t>()));
      return;
    case Opcode::binint1:
      stack_.push_back(number(u8()));
      return;
    case Opcode::binint2:
      stack_.push_back(number(little<std::uint16_t>()));
      return;
    case Opcode::long1:
      return push_long(u8());
    case Opcode::long4: {
      const auto size = little<std::int32_t>();
      if (size < 0) damaged("an integer of negative length");
      return push_long(static_cast<std::uint64_t>(size));
    }
    case Opcode::binfloat:
      return push(
          Kind::real,
          add(objects_.reals, std::bit_cast<double>(__builtin_bswap64(little<std::uint64_t>()))));
    case Opcode::binunicode:
      return push_string(take(little<std::uint32_t>()));
    case Opcode::short_binstring:
      return push_string(take(u8()));
    case Opcode::binstring: {
      const auto size = little<std::int32_t>();
      if (size < 0) damaged("a string of negative length");
      return push_string(take(static_cast<std::uint64_t>(size)));
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
      return push_tuple(above_mark());
    case Opcode::empty_list:
      return push(Kind::list, add(objects_.lists, {}));
    case Opcode::empty_dict:
      return push(Kind::dict, add(objects_.dicts, {}));

    case Opcode::append:
      return append_all(last(1));
    case Opcode::appends:
      return append_all(above_mark());
    case Opcode::setitem:
      return set_all(last(2));
    case Opcode::setitems:
      return set_all(above_mark());

    case Opcode::put:
      return remember(u8());
    case Opcode::long_put:
      return remember(little<std::uint32_t>());
    case Opcode::get:
      return recall(u8());
    case Opcode::long_get:
      return recall(little<std::uint32_t>());

    case Opcode::global: {
      const PickleObjects::Text module = line();
      const PickleObjects::Text name = line();
      const NameMeaning meaning = meaning_of(objects_.text(module), objects_.text(name));
      return push(Kind::global, add(objects_.globals, {meaning, module, name}));
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
  unknown(opcode);
}

/// What torch.save writes when it is told to.
void Machine::unknown(Opcode opcode) const {
  const auto code = static_cast<char>(opcode);
  const bool announced = !pickle_.empty() && static_cast<Opcode>(pickle_[0]) == Opcode::proto;
  constexpr std::string_view kOldOpcodes = "ILSVFPiodlpg";
  if (!announced && kOldOpcodes.find(code) != std::string_view::npos) {
    fail(ErrorCode::unsupported_value,
         fmt::format("it is pickled in protocol 0 or 1 (opcode {}), only protocol 2 is read: load "
                     "it with torch and save it again without pickle_protocol",
                     code));
  }
  damaged(fmt::format("unknown opcode 0x{:02x}", static_cast<unsigned>(opcode)));
}

}  // namespace

PickleProgram run_pickle(std::vector<std::byte> pickle, const std::string& path) {
  return Machine(std::move(pickle), path).run();
}

}  // namespace ckptring::plan
