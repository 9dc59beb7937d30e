#include "base/checksum.h"
#include "base/out_of_memory.h"
#include "base/rank.h"
#include "plan/key_tree.h"
#include "plan/pt_archive.h"
#include "plan/record_names.h"
#include "plan/tensor_bounds.h"
#include "store/file_source.h"

#include <ckptring/archive.h>
#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

namespace ckptring {
namespace {

using plan::KeyStep;
using plan::KeyTree;
using Node = KeyTree::Node;

constexpr std::size_t kReadAtOnce = std::size_t{1} << 20;
/// What keys, strings and shapes may take together; the second for each byte of the pickle.
constexpr std::uint64_t kLeastText = std::uint64_t{16} << 20;
constexpr std::uint64_t kTextPerByte = 64;

ArchivedTensor described(const plan::Tensor& tensor) {
  return {.dtype = tensor.dtype(),
          .storage = tensor.record(),
          .offset = tensor.offset(),
          .sizes = tensor.sizes(),
          .strides = tensor.strides(),
          .location = std::string(tensor.location()),
          .requires_grad = tensor.requires_grad(),
          .conj = tensor.conj(),
          .neg = tensor.neg()};
}

/// Lists all values of a document that are no containers.
class Listing {
 public:
  /// @param most_text  bytes that keys, strings and shapes may take in all
  Listing(std::vector<ArchiveEntry>& entries, std::uint64_t most_text, const std::string& path)
      : entries_(entries), text_left_(most_text), path_(path) {}

  /// By a loop: the caller's stack may be small.
  void run(const plan::Value& root) {
    visit(root, KeyTree::kRoot);
    while (!open_.empty()) {
      Open& open = open_.back();
      if (open.next == open.size) {
        open_.pop_back();
        continue;
      }
      const std::size_t index = open.next++;
      if (open.dict) {
        dict_item(plan::Dict(*open.dict), index, open.node);
      } else {
        visit((*open.sequence)[index], keys_.add_borrowed(open.node, KeyStep::at(index)));
      }
    }
  }

 private:
  struct Open {
    Node node;
    std::optional<plan::Dict> dict;
    std::optional<plan::Sequence> sequence;
    std::size_t size;
    std::size_t next = 0;
  };

  void dict_item(const plan::Dict& dict, std::size_t index, Node node) {
    const plan::Dict::Key key = dict.key(index);
    if (const auto* const other = std::get_if<plan::OtherKey>(&key)) {
      add(node, UnsupportedEntry{fmt::format("an item whose key is {}", other->words)});
      return;
    }
    const auto* const text = std::get_if<plan::String>(&key);
    const KeyStep step =
        text != nullptr ? KeyStep::of(text->text) : KeyStep::of_key(std::get<std::int64_t>(key));
    visit(dict.value(index), keys_.add_borrowed(node, step));
  }

  void visit(const plan::Value& value, Node node) {
    std::visit([&](const auto& plain) { take(plain, node); }, value.data);
  }
  void take(const plan::Dict& dict, Node node) {
    if (met_.insert(dict.id()).second) open_.push_back({node, dict, {}, dict.size()});
  }
  void take(const plan::Sequence& sequence, Node node) {
    if (met_.insert(sequence.id()).second) open_.push_back({node, {}, sequence, sequence.size()});
  }
  void take(const plan::None& /*none*/, Node node) { add(node, std::monostate{}); }
  void take(bool value, Node node) { add(node, value); }
  void take(std::int64_t value, Node node) { add(node, value); }
  void take(double value, Node node) { add(node, value); }
  void take(const plan::String& value, Node node) {
    charge(value.text.size());
    add(node, std::string(value.text));
  }
  void take(const plan::Tensor& value, Node node) {
    charge(value.location().size() + 2 * sizeof(std::int64_t) * value.dimensions());
    add(node, described(value));
  }
  void take(const plan::Unsupported& value, Node node) {
    charge(value.what.size());
    add(node, UnsupportedEntry{value.what});
  }

  template <class T>
  void add(Node node, T&& value) {
    charge(keys_.whole_length(node));
    entries_.push_back({keys_.whole_path(node), std::forward<T>(value)});
  }
  /// Before it is copied: the file may refer to it again and again.
  void charge(std::uint64_t bytes) {
    if (bytes > text_left_) {
      throw Error(ErrorCode::unsupported_value, "list the values of", path_,
                  "long keys, strings or shapes come so often that listing them would take more "
                  "memory than such a file may ask for");
    }
    text_left_ -= bytes;
  }

  std::vector<ArchiveEntry>& entries_;
  std::uint64_t text_left_;
  const std::string& path_;
  KeyTree keys_;
  std::vector<Open> open_;       ///< the innermost last
  std::set<std::uint32_t> met_;  ///< containers, by number
};

/// Copies elements that lie apart.
/// @param storage  the whole of it
void gather(const ArchivedTensor& tensor, std::span<const std::byte> storage,
            std::span<std::byte> into) {
  const std::size_t size = element_size(tensor.dtype);
  std::vector<std::int64_t> at(tensor.sizes.size(), 0);
  std::int64_t element = tensor.offset;
  for (std::size_t written = 0; written < into.size(); written += size) {
    std::memcpy(into.data() + written, storage.data() + static_cast<std::size_t>(element) * size,
                size);
    for (std::size_t d = at.size(); d-- > 0;) {
      if (tensor.sizes[d] == 1) continue;  // whose stride may be anything
      element += tensor.strides[d];
      if (++at[d] < tensor.sizes[d]) break;
      element -= tensor.strides[d] * tensor.sizes[d];
      at[d] = 0;
    }
  }
}

bool is_contiguous(const ArchivedTensor& tensor) {
  std::int64_t expected = 1;
  for (std::size_t d = tensor.sizes.size(); d-- > 0;) {
    if (tensor.sizes[d] != 1 && tensor.strides[d] != expected) return false;
    expected *= tensor.sizes[d];
  }
  return true;
}

}  // namespace

std::uint64_t ArchivedTensor::elements() const {
  std::uint64_t count = 1;
  for (const std::int64_t size : sizes) count *= static_cast<std::uint64_t>(size);
  return count;
}

struct Archive::Parts {
  explicit Parts(std::unique_ptr<store::FileSource> file)
      : source(std::move(file)), archive(plan::PtArchive::open(*source)) {
    const plan::Document document = archive.read_value(*source);
    const plan::Record* const pickle = archive.find(plan::kPickleRecord);
    const std::uint64_t size = pickle != nullptr ? pickle->size : 0;
    Listing(entries, kLeastText + kTextPerByte * size, source->path()).run(document.root());
    by_key.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) by_key.try_emplace(entries[i].key, i);
  }

  /// Calls `take` with all pieces of a record, in their order.
  template <class Take>
  void read_record(const plan::Record& record, Take&& take) const {
    std::vector<std::byte> piece(std::min<std::uint64_t>(kReadAtOnce, record.size));
    std::uint32_t crc = 0;
    for (std::uint64_t at = 0; at < record.size; at += piece.size()) {
      piece.resize(std::min<std::uint64_t>(piece.size(), record.size - at));
      source->read(record.data_offset + at, piece);
      crc = base::crc32(piece, crc);
      take(at, std::span<const std::byte>(piece));
    }
    check(record, crc);
  }
  void check(const plan::Record& record, std::uint32_t crc) const {
    try {
      record.check(crc);
    } catch (const Error& damage) {
      throw Error(damage.code(), "read a tensor of", source->path(), damage.what());
    }
  }

  const std::unique_ptr<store::FileSource> source;
  const plan::PtArchive archive;
  std::vector<ArchiveEntry> entries;
  std::unordered_map<std::string_view, std::size_t> by_key;
  CheckpointInfo info;
};

Archive::Archive(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Archive::~Archive() = default;
Archive::Archive(Archive&&) noexcept = default;
Archive& Archive::operator=(Archive&&) noexcept = default;

Archive Archive::open(const std::string& path, const RankInfo& rank_info) {
  base::check_rank(rank_info);
  return base::or_out_of_memory("open", path, [&] {
    auto parts = std::make_unique<Parts>(store::open_checkpoint(path, rank_info.global_rank));
    parts->info = parts->archive.info();
    parts->info.path = path;
    return Archive(std::move(parts));
  });
}

const CheckpointInfo& Archive::info() const noexcept { return parts_->info; }

std::span<const ArchiveEntry> Archive::entries() const noexcept { return parts_->entries; }

const ArchiveEntry* Archive::find(std::string_view key) const noexcept {
  const auto found = parts_->by_key.find(key);
  return found == parts_->by_key.end() ? nullptr : &parts_->entries[found->second];
}

const ArchiveEntry& Archive::require(std::string_view key) const {
  if (const ArchiveEntry* const entry = find(key)) return *entry;
  throw Error(ErrorCode::missing_key, fmt::format("get key {} of", key), parts_->source->path(),
              "the file does not have it");
}

void Archive::refuse_kind(const ArchiveEntry& entry) const {
  constexpr std::array kKinds = {
      "None", "a bool", "an int", "a float", "a string", "a tensor", "a value that cannot be read"};
  throw Error(ErrorCode::mismatch, fmt::format("get key {} of", entry.key), parts_->source->path(),
              fmt::format("the file has {} there", kKinds.at(entry.value.index())));
}

void Archive::read(const ArchivedTensor& tensor, std::span<std::byte> into,
                   bool verify_checksum) const {
  const std::string& path = parts_->source->path();
  const auto refuse = [&](std::string cause) {
    throw Error(ErrorCode::invalid_argument, "read a tensor of", path, std::move(cause));
  };
  if (tensor.storage >= parts_->archive.records().size()) refuse("it is not of this file");
  if (into.size() != tensor.bytes()) {
    refuse(fmt::format("it has {} bytes, and there is room for {}", tensor.bytes(), into.size()));
  }
  const plan::Record& record = parts_->archive.records()[tensor.storage];
  if (const auto problem = plan::tensor_problem({.dtype = tensor.dtype,
                                                 .storage_bytes = record.size,
                                                 .offset = tensor.offset,
                                                 .sizes = tensor.sizes,
                                                 .strides = tensor.strides,
                                                 .conj = tensor.conj,
                                                 .neg = tensor.neg,
                                                 .requires_grad = tensor.requires_grad})) {
    refuse("it is not of this file: " + *problem);
  }
  if (into.empty()) return;
  if (verify_checksum) {
    parts_->archive.require_checksums("read a tensor of",
                                      "; verify_checksum = false reads it without comparing any");
  }
  base::or_out_of_memory("read a tensor of", path, [&] {
    const std::uint64_t begin =
        static_cast<std::uint64_t>(tensor.offset) * element_size(tensor.dtype);
    const bool in_order = is_contiguous(tensor);
    if (in_order && !verify_checksum) {
      parts_->source->read(record.data_offset + begin, into);
    } else if (in_order) {
      parts_->read_record(record, [&](std::uint64_t at, std::span<const std::byte> piece) {
        const std::uint64_t from = std::max(at, begin);
        const std::uint64_t to = std::min(at + piece.size(), begin + into.size());
        if (from < to)
          std::memcpy(into.data() + (from - begin), piece.data() + (from - at), to - from);
      });
    } else {
      std::vector<std::byte> storage(record.size);
      parts_->source->read(record.data_offset, storage);
      if (verify_checksum) parts_->check(record, base::crc32(storage));
      gather(tensor, storage, into);
    }
  });
}

}  // namespace ckptring
