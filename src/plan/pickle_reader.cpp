#include "plan/pickle_reader.h"

#include "plan/key_path.h"
#include "plan/pickle_machine.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

namespace ckptring::plan {
namespace {

using Kind = PickleItem::Kind;

/// Turns the machine's tables into a Value, each container once.
class Converter {
 public:
  Converter(const PickleObjects& objects, std::uint64_t pickle_size, const std::string& path,
            const TensorCheck& check)
      : objects_(objects),
        path_(path),
        check_(check),
        most_visits_((std::uint64_t{16} << 20) + 16 * pickle_size),
        copies_left_((std::uint64_t{256} << 20) + 16 * pickle_size),
        lists_(objects.lists.size(), kNew),
        tuples_(objects.tuples.size(), kNew),
        dicts_(objects.dicts.size(), kNew) {}

  Value convert(const PickleItem& root) { return visit(root, 0).value; }

 private:
  /// A converted value, and what a walk that follows every reference in it would meet.
  struct Result {
    Value value;
    std::uint64_t visits = 1;
    int height = 0;  ///< levels of containers
  };
  /// What became of a container: kNew, kBegun, or kEnded + its index in results_.
  using Progress = std::uint32_t;
  static constexpr Progress kNew = 0;
  static constexpr Progress kBegun = 1;
  static constexpr Progress kEnded = 2;

  [[noreturn]] void damaged(std::string_view what) const {
    const std::string& where = keys_.text();
    throw Error(ErrorCode::damaged, "read", path_,
                where.empty() ? fmt::format("record data.pkl: {}", what)
                              : fmt::format("record data.pkl, key {}: {}", where, what));
  }

  /// Strings and shapes are copied at each reference, so a small pickle could ask for any amount.
  void account(std::uint64_t bytes) {
    if (bytes > copies_left_) damaged("values that are referred to again and again are too large");
    copies_left_ -= bytes;
  }

  std::string copy(std::string_view text) {
    account(text.size());
    return std::string(text);
  }

  Result visit(const PickleItem& item, int depth) {
    switch (item.kind) {
      case Kind::none:
        return {Value{None{}}};
      case Kind::boolean:
        return {Value{item.boolean()}};
      case Kind::integer:
        return {Value{item.integer()}};
      case Kind::real:
        return {Value{item.real()}};
      case Kind::string:
        return {Value{copy(objects_.strings[item.index()])}};
      case Kind::tensor:
        return tensor(objects_.tensors[item.index()]);
      case Kind::list:
        return container(lists_[item.index()], depth, [&](Result& result) {
          result.value.data = sequence<List>(objects_.lists[item.index()], depth, result);
        });
      case Kind::tuple:
        return container(tuples_[item.index()], depth, [&](Result& result) {
          result.value.data = sequence<Tuple>(objects_.items(item), depth, result);
        });
      case Kind::dict:
        return container(dicts_[item.index()], depth, [&](Result& result) {
          dict(objects_.dicts[item.index()], depth, result);
        });
      default:
        return {Value{Unsupported{copy(objects_.describe(item))}}};
    }
  }

  template <class Fill>
  Result container(Progress& progress, int depth, Fill fill) {
    if (progress == kBegun) damaged("a container contains itself");
    if (progress == kNew) {
      if (depth >= kMaxDepth) too_deep();
      progress = kBegun;
      Result result;
      fill(result);
      ++result.height;
      results_.push_back(std::move(result));
      progress = kEnded + static_cast<Progress>(results_.size() - 1);
    }
    const Result& result = results_[progress - kEnded];
    if (depth + result.height > kMaxDepth) too_deep();
    return result;
  }

  [[noreturn]] void too_deep() const {
    damaged(fmt::format("containers are nested deeper than {} levels", kMaxDepth));
  }

  void include(Result& parent, const Result& child) const {
    // Both are far below overflow: each was checked when it was made.
    parent.visits += child.visits;
    if (parent.visits > most_visits_) {
      damaged("shared containers make it a tree of more values than are allowed");
    }
    parent.height = std::max(parent.height, child.height);
  }

  template <class Sequence>
  std::shared_ptr<Sequence> sequence(std::span<const PickleItem> items, int depth, Result& result) {
    auto made = std::make_shared<Sequence>();
    made->items.reserve(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
      keys_.push_index(i);
      Result child = visit(items[i], depth + 1);
      include(result, child);
      made->items.push_back(std::move(child.value));
      keys_.pop();
    }
    return made;
  }

  void dict(std::span<const PickleItem> items, int depth, Result& result) {
    for (std::size_t i = 0; i < items.size(); i += 2) {
      if (!items[i].is(Kind::string) && !items[i].is(Kind::integer)) {
        result.value.data = Unsupported{
            copy(fmt::format("a dict with a key that is {}", objects_.describe(items[i])))};
        return;
      }
    }
    auto made = std::make_shared<Dict>();
    made->items.reserve(items.size() / 2);
    const std::vector<std::size_t> values = last_of_equal_keys(items);
    for (std::size_t entry = 0; entry < values.size(); ++entry) {
      if (values[entry] == kNotFirst) continue;
      const PickleItem& item = items[2 * entry];
      Dict::Key key;
      if (item.is(Kind::string)) {
        key = copy(objects_.strings[item.index()]);
      } else {
        key = item.integer();
      }
      keys_.push_key(key);
      Result child = visit(items[2 * values[entry] + 1], depth + 1);
      include(result, child);
      keys_.pop();
      made->items.emplace_back(std::move(key), std::move(child.value));
    }
    result.value.data = std::move(made);
  }

  static constexpr std::size_t kNotFirst = std::numeric_limits<std::size_t>::max();

  /// For each entry that is the first of its key, the last one; kNotFirst for the others. By
  /// sorting: a hash table could be made slow by the keys of a hostile file.
  std::vector<std::size_t> last_of_equal_keys(std::span<const PickleItem> items) const {
    const auto compare = [&](std::size_t a, std::size_t b) {
      const PickleItem& left = items[2 * a];
      const PickleItem& right = items[2 * b];
      if (left.kind != right.kind) return left.kind < right.kind ? -1 : 1;
      if (left.bits == right.bits) return 0;
      if (left.is(Kind::integer)) return left.integer() < right.integer() ? -1 : 1;
      return objects_.strings[left.index()].compare(objects_.strings[right.index()]);
    };
    std::vector<std::size_t> order(items.size() / 2);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const int sign = compare(a, b);
      return sign != 0 ? sign < 0 : a < b;
    });
    std::vector<std::size_t> last(order.size(), kNotFirst);
    for (std::size_t i = 0; i < order.size();) {
      std::size_t end = i + 1;
      while (end < order.size() && compare(order[i], order[end]) == 0) ++end;
      last[order[i]] = order[end - 1];
      i = end;
    }
    return last;
  }

  Result tensor(const PickleTensor& found) {
    if (found.has_state) return {Value{Unsupported{"a tensor with Python state"}}};
    const PickleStorage& storage = objects_.storages[found.storage];
    const auto numbers = [&](const PickleItem& tuple) {
      const auto items = objects_.items(tuple);
      account(items.size() * sizeof(std::int64_t));
      std::vector<std::int64_t> out;
      out.reserve(items.size());
      for (const PickleItem& item : items) out.push_back(item.integer());
      return out;
    };
    Tensor tensor{.dtype = found.dtype,
                  .storage_key = copy(storage.key),
                  .storage_bytes = storage.bytes,
                  .location = copy(storage.location),
                  .offset = found.offset,
                  .sizes = numbers(found.sizes),
                  .strides = numbers(found.strides),
                  .requires_grad = found.requires_grad,
                  .conj = found.conj,
                  .neg = found.neg};
    if (const std::optional<std::string> problem = check_(tensor)) damaged(*problem);
    return {Value{std::move(tensor)}};
  }

  const PickleObjects& objects_;
  const std::string& path_;
  const TensorCheck& check_;
  const std::uint64_t most_visits_;
  std::uint64_t copies_left_;
  std::vector<Progress> lists_;
  std::vector<Progress> tuples_;
  std::vector<Progress> dicts_;
  std::vector<Result> results_;
  KeyPath keys_;
};

}  // namespace

Value read_pickle(std::span<const std::byte> pickle, const std::string& path,
                  const TensorCheck& check) {
  const PickleProgram program = run_pickle(pickle, path);
  return Converter(program.objects, pickle.size(), path, check).convert(program.root);
}

}  // namespace ckptring::plan
