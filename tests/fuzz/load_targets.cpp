#include "fuzz/targets.h"

#include "plan/zip_layout.h"
#include "support/materialize.h"

#include <ckptring/error.h>
#include <ckptring/reader.h>

#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/zeros.h>

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::fuzz {
namespace {

using c10::IValue;

void promise(bool kept, const char* what, const std::string& detail = {}) {
  if (kept) return;
  std::fprintf(stderr, "a broken promise: %s: %s\n", what, detail.c_str());
  std::abort();
}

/// A file in memory, under a name of its own.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::byte> bytes) : fd_(::memfd_create("fuzzed", 0)) {
    promise(
        fd_ >= 0 && ::write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
        "a file can be made");
  }
  ~MemoryFile() { (void)::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

/// The first bytes of every tensor of a state, and everything else in words. A walk that follows
/// every reference, as users do.
class Sight {
 public:
  explicit Sight(const StateDict& state) { visit(IValue(state)); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  void visit(const IValue& value) {
    // What is walked twice as far is as good.
    if (++visits_ > 20000) return;
    if (value.isTensor() && value.toTensor().defined()) {
      const at::Tensor& tensor = value.toTensor();
      text_ += 't';
      if (tensor.numel() == 0) return;
      const auto* first = static_cast<const char*>(tensor.storage().data()) +
                          tensor.storage_offset() * static_cast<std::int64_t>(tensor.itemsize());
      text_.append(first, tensor.itemsize());
    } else if (value.isGenericDict()) {
      text_ += '{';
      for (const auto& entry : value.toGenericDict()) {
        visit(entry.key());
        visit(entry.value());
      }
    } else if (value.isList()) {
      text_ += '[';
      for (const IValue& item : value.toListRef()) visit(item);
    } else if (value.isTuple()) {
      text_ += '(';
      for (const IValue& item : value.toTupleRef().elements()) visit(item);
    } else if (value.isString()) {
      text_.append("s").append(value.toStringRef().substr(0, 16));
    } else if (value.isInt()) {
      text_ += 'i' + std::to_string(value.toInt());
    } else if (value.isDouble()) {
      text_ += 'd' + std::to_string(value.toDouble());
    } else {
      promise(value.isBool() || value.isNone(), "a value of a kind that states have",
              value.tagKind());
      text_ += value.isNone() ? 'N' : value.toBool() ? 'T' : 'F';
    }
  }

  std::string text_;
  std::uint64_t visits_ = 0;
};

/// Another state, made of what is in one: some values are missing, some are of another kind, and
/// some containers stand in two places.
class Changed {
 public:
  explicit Changed(std::uint64_t seed) : random_(seed) {}

  IValue of(const IValue& value, int depth = 0) {
    if (++made_ > 2000) return IValue();
    switch (random_() % 24) {
      case 0:
        return IValue();
      case 1:
        return IValue(static_cast<std::int64_t>(random_() % 5));
      case 2:
        return at::zeros({2});
      case 3:
        if (!containers_.empty()) return containers_[random_() % containers_.size()];
        break;
      default:
        break;
    }
    if (value.isGenericDict()) return dict_of(value.toGenericDict(), depth);
    if (value.isList()) {
      auto list = make_state_list();
      std::size_t left = value.toListRef().size();
      if (random_() % 4 == 0) left = random_() % (left + 1);
      containers_.emplace_back(list);
      for (const IValue& item : value.toListRef().slice(0, left))
        list.push_back(of(item, depth + 1));
      return list;
    }
    if (value.isTuple()) {
      std::vector<IValue> items;
      for (const IValue& item : value.toTupleRef().elements()) items.push_back(of(item, depth + 1));
      return c10::ivalue::Tuple::create(std::move(items));
    }
    if (value.isTensor() && value.toTensor().defined() && random_() % 2 == 0) {
      // Others of the same shape, or the same one: tensors then lie in the same memory.
      const at::Tensor& tensor = value.toTensor();
      if (tensor.numel() < 4096) return at::zeros(tensor.sizes(), tensor.options());
    }
    return value;
  }

  StateDict dict_of(const StateDict& dict, int depth) {
    StateDict made = make_state_dict();
    if (depth > 0) containers_.emplace_back(made);
    for (const auto& entry : dict) {
      if (random_() % 16 == 0) continue;
      made.insert_or_assign(entry.key(), of(entry.value(), depth + 1));
    }
    return made;
  }

 private:
  std::mt19937_64 random_;
  std::vector<IValue> containers_;
  int made_ = 0;
};

/// Loads the file. Whatever is in it, there is a state or an Error that says what.
std::optional<StateDict> load(const std::string& path, const std::optional<StateDict>& into) {
  try {
    const LoadResult result =
        CheckpointReader().read(path, into, {.allow_other_world_size = true, .threads = 1});
    return result.state;
  } catch (const Error& error) {
    promise(error.code() == ErrorCode::damaged || error.code() == ErrorCode::unsupported_value ||
                error.code() == ErrorCode::newer_format ||
                (into && error.code() == ErrorCode::mismatch),
            "an error of another kind", error.what());
    promise(error.path() == path && !error.cause().empty(), "an error that does not say what",
            error.what());
    return std::nullopt;
  }
}

void load_file(std::span<const std::byte> bytes, std::uint64_t seed) {
  const MemoryFile file(bytes);
  const std::optional<StateDict> state = load(file.path(), {});
  if (!state) return;
  const std::string before = Sight(*state).text();
  promise(load(file.path(), state).has_value(), "a file is loaded into its own state");
  promise(Sight(*state).text() == before, "a file that is loaded twice has the same values");
  const StateDict changed = Changed(seed).dict_of(*state, 0);
  const std::string as_it_was = Sight(changed).text();
  // Tensors get at most what the file has, and nothing changes where it is refused.
  if (!load(file.path(), changed)) {
    promise(Sight(changed).text() == as_it_was, "what is refused changes nothing");
  } else {
    (void)Sight(changed);
  }
}

std::uint64_t seed_of(std::span<const std::byte> bytes) {
  return bytes.empty() ? 0 : static_cast<std::uint64_t>(bytes[bytes.size() / 2]) + bytes.size();
}

}  // namespace

void load_archive(std::span<const std::byte> bytes) { load_file(bytes, seed_of(bytes)); }

void load_any_pickle(std::span<const std::byte> bytes) {
  plan::ZipLayout layout("a");
  layout.add_literal("data.pkl", bytes);
  // As the seeds have them.
  const std::array<std::size_t, 4> records{48, 0, 9, 16};
  for (std::size_t i = 0; i < records.size(); ++i) {
    layout.add_literal("data/" + std::to_string(i), test::pattern(records[i], 1));
  }
  load_file(test::materialize(std::move(layout).finish(), {}), seed_of(bytes));
}

}  // namespace ckptring::fuzz
