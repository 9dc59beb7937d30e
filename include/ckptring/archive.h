// Reading a checkpoint back without a tensor library: what is in it, and the bytes of its tensors.
// With libtorch: ckptring/torch/reader.h.
#pragma once

#include <ckptring/checkpoints.h>
#include <ckptring/dtype.h>
#include <ckptring/export.h>
#include <ckptring/rank_info.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ckptring {

/// A tensor of a file. Offset, sizes and strides count elements.
struct ArchivedTensor {
  DType dtype;
  std::size_t storage;  ///< tensors that have the same one share its memory
  std::int64_t offset;  ///< of its first element in the storage
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
  std::string location;  ///< where it was when it was saved: "cpu", "cuda:0"
  bool requires_grad = false;
  bool conj = false;
  bool neg = false;

  [[nodiscard]] CKPTRING_API std::uint64_t elements() const;
  [[nodiscard]] std::uint64_t bytes() const { return elements() * element_size(dtype); }
};

/// Something that the file holds and there is no counterpart for.
struct UnsupportedEntry {
  std::string what;  ///< in words: "an object of class foo.Bar"
};

/// A value that is no container.
struct ArchiveEntry {
  std::string key;  ///< "model.layers[0].weight"; int keys of dicts as "state.0.step"
  /// std::monostate: None
  std::variant<std::monostate, bool, std::int64_t, double, std::string, ArchivedTensor,
               UnsupportedEntry>
      value;
};

/// A file that was opened. Thread-safe.
class CKPTRING_API Archive {
 public:
  /// Opens `path/checkpoint_{rank}.pt`, or `path` itself if it is a file. Reads and checks its
  /// index, and what describes its values; no tensor's bytes. Memory and time are in proportion to
  /// the file's index, whatever it holds: about 250 bytes for each value, and its key.
  /// @throws Error not_found, permission, io, damaged, unsupported_value, newer_format,
  ///         out_of_memory; invalid_argument for a rank that cannot be
  static Archive open(const std::string& path, const RankInfo& rank_info = {});
  ~Archive();
  Archive(Archive&&) noexcept;
  Archive& operator=(Archive&&) noexcept;

  [[nodiscard]] const CheckpointInfo& info() const noexcept;

  /// In the order of the state. What a container holds that is in the state several times is
  /// listed where it comes first.
  [[nodiscard]] std::span<const ArchiveEntry> entries() const noexcept;
  /// The first one with this key; null if there is none.
  [[nodiscard]] const ArchiveEntry* find(std::string_view key) const noexcept;
  /// The value of the one with this key.
  /// @throws Error missing_key; mismatch if it is of another kind
  template <class T>
  [[nodiscard]] const T& get(std::string_view key) const {
    const ArchiveEntry& entry = require(key);
    if (const T* const value = std::get_if<T>(&entry.value)) return *value;
    refuse_kind(entry);
  }

  /// Reads a tensor's elements, in the order of its sizes without gaps, whatever its strides. Reads
  /// the whole storage and compares its checksum, unless `verify_checksum` is false.
  /// @param tensor  of this archive
  /// @param into    as many bytes as the tensor has; nothing is promised of them after an error
  /// @throws Error invalid_argument (another size), damaged, io, out_of_memory; unsupported_value
  ///         if the file has no checksums to compare
  void read(const ArchivedTensor& tensor, std::span<std::byte> into,
            bool verify_checksum = true) const;

 private:
  struct Parts;
  explicit Archive(std::unique_ptr<Parts> parts);
  [[nodiscard]] const ArchiveEntry& require(std::string_view key) const;
  [[noreturn]] void refuse_kind(const ArchiveEntry& entry) const;
  std::unique_ptr<Parts> parts_;
};

}  // namespace ckptring
