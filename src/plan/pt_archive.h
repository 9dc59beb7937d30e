// Reading a `.pt` archive: its index, its pickle, its metadata. Allow-list only; nothing in the
// file is executed, and every bound is checked before anything is allocated.
#pragma once

#include "plan/byte_source.h"
#include "plan/value.h"

#include <ckptring/checkpoints.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// One stored record of the archive.
struct Record {
  std::string name;           ///< without the archive's top folder, e.g. "data/0"
  std::uint64_t data_offset;  ///< of the first payload byte in the file
  std::uint64_t size;         ///< bytes
  std::uint32_t crc32;        ///< as the central directory states it

  /// @param found of the bytes that were read
  /// @throws Error damaged if that is another one
  void check(std::uint32_t found) const;
};

/// The index of a file that was opened. Holds no reference to its source; thread-safe.
class PtArchive {
 public:
  /// Reads the central directory, the local headers, the data descriptors and ckptring.json, and
  /// checks that they agree and that no record leaves the file or overlaps another. Any zip archive
  /// of stored records in one top folder will do, torch.save's in particular.
  /// @throws Error damaged (naming the record and the field), unsupported_value (compressed or
  ///         encrypted records, big-endian data; TorchScript, torch's old format and others: says
  ///         what it is and what to do), newer_format, io
  static PtArchive open(const ByteSource& source);

  /// In the order of the file.
  [[nodiscard]] const std::vector<Record>& records() const noexcept { return records_; }
  /// Null if there is none.
  [[nodiscard]] const Record* find(std::string_view name) const noexcept;

  /// Contents of ckptring.json; format_version 0 if there is none. `path` is the source's.
  [[nodiscard]] const CheckpointInfo& info() const noexcept { return info_; }

  /// Parses data.pkl and checks each tensor: all of its elements lie in its storage, whose record
  /// has the size that the pickle states. Reads no payload.
  /// @throws Error damaged (naming the key), unsupported_value (another pickle protocol), io
  [[nodiscard]] Document read_value(const ByteSource& source) const;

  /// Whether it has any: torch.save leaves them all at zero if it is told to.
  [[nodiscard]] bool has_checksums() const noexcept { return has_checksums_; }
  /// @param operation what is to be done with them, as a verb phrase
  /// @param remedy    what the caller can do about it, in words; may be empty
  /// @throws Error unsupported_value if it has none
  void require_checksums(const std::string& operation, const std::string& remedy) const;

 private:
  [[nodiscard]] const Record* find_storage(std::string_view key) const;

  std::vector<Record> records_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  CheckpointInfo info_;
  bool has_checksums_ = true;
};

}  // namespace ckptring::plan
