// Reading a `.pt` archive: its index, its pickle, its metadata. Allow-list only; nothing in the
// file is executed, and every bound is checked before anything is allocated.
#pragma once

#include "plan/byte_source.h"
#include "plan/value.h"

#include <ckptring/checkpoints.h>

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
};

class PtArchive {
 public:
  /// Reads the central directory and the local headers and checks that no record leaves the file
  /// or overlaps another.
  /// @throws Error damaged, unsupported_value (compressed or encrypted records), newer_format
  static PtArchive open(const ByteSource& source);

  [[nodiscard]] const std::vector<Record>& records() const noexcept { return records_; }
  [[nodiscard]] const Record* find(std::string_view name) const noexcept;

  /// Contents of ckptring.json; format_version 0 if there is none. `path` is the source's.
  [[nodiscard]] const CheckpointInfo& info() const noexcept { return info_; }

  /// Parses data.pkl and checks each tensor against the record of its storage.
  /// @throws Error damaged, unsupported_value
  [[nodiscard]] Value read_value(const ByteSource& source) const;

 private:
  std::vector<Record> records_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  CheckpointInfo info_;
};

}  // namespace ckptring::plan
