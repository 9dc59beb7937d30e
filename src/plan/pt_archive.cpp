#include "plan/pt_archive.h"

#include "base/checksum.h"
#include "plan/checkpoint_json.h"
#include "plan/pickle_reader.h"
#include "plan/record_names.h"
#include "plan/zip_index.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

namespace ckptring::plan {
namespace {

constexpr std::uint64_t kMaxWord = 64;
/// Of a record; a pickle may speak of names of any length, and often.
constexpr std::size_t kLongestName = 0xFFFF;

/// @param check compare it with its checksum
std::vector<std::byte> read_record(const ByteSource& source, const Record& record,
                                   std::uint64_t most, bool check) {
  if (record.size > most) {
    throw Error(
        ErrorCode::unsupported_value, "read", source.path(),
        fmt::format("record {}: {} bytes exceed the limit of {}", record.name, record.size, most));
  }
  std::vector<std::byte> bytes(record.size);
  source.read(record.data_offset, bytes);
  if (check && base::crc32(bytes) != record.crc32) {
    throw Error(ErrorCode::damaged, "read", source.path(),
                fmt::format("record {}: its checksum does not match its contents", record.name));
  }
  return bytes;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void Record::check(std::uint32_t found) const {
  if (found == crc32) return;
  throw Error(
      ErrorCode::damaged, "check record", name,
      fmt::format("record {} has CRC-32 {:08x}, its index says {:08x}", name, found, crc32));
}

PtArchive PtArchive::open(const ByteSource& source) {
  PtArchive archive;
  archive.records_ = read_zip_index(source);
  for (std::size_t i = 0; i < archive.records_.size(); ++i) {
    archive.by_name_.emplace(archive.records_[i].name, i);
  }
  archive.has_checksums_ =
      std::ranges::any_of(archive.records_, [](const Record& record) { return record.crc32 != 0; });
  const bool check = archive.has_checksums_;
  archive.info_.path = source.path();
  // First: a newer format may differ in all that follows.
  if (const Record* const record = archive.find(kInfoRecord)) {
    archive.info_ =
        from_json(as_text(read_record(source, *record, kMaxJson, check)), source.path());
  }
  if (const Record* const record = archive.find(kByteOrderRecord)) {
    const std::vector<std::byte> bytes = read_record(source, *record, kMaxWord, check);
    if (as_text(bytes) == "big") {
      throw Error(ErrorCode::unsupported_value, "read", source.path(),
                  "it was written on a big-endian machine");
    }
    if (as_text(bytes) != "little") {
      throw Error(ErrorCode::damaged, "read", source.path(),
                  "record byteorder: neither little nor big");
    }
  }
  if (archive.find(kPickleRecord) == nullptr) {
    throw Error(ErrorCode::damaged, "read", source.path(),
                "record data.pkl is missing: it is not a torch file");
  }
  return archive;
}

const Record* PtArchive::find(std::string_view name) const noexcept {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &records_[found->second];
}

void PtArchive::require_checksums(const std::string& operation, const std::string& remedy) const {
  if (has_checksums_) return;
  throw Error(ErrorCode::unsupported_value, operation, info_.path,
              "its checksums were not computed: torch.save leaves them out where compute_crc32 is "
              "False" +
                  remedy);
}

Document PtArchive::read_value(const ByteSource& source) const {
  return read_pickle(
      read_record(source, *find(kPickleRecord), kMaxPickle, has_checksums_), source.path(),
      [&](std::string_view key) -> std::optional<StoredRecord> {
        const Record* const record = find_storage(key);
        if (record == nullptr) return std::nullopt;
        return StoredRecord{static_cast<std::size_t>(record - records_.data()), record->size};
      });
}

const Record* PtArchive::find_storage(std::string_view key) const {
  if (key.size() > kLongestName) return nullptr;
  return find(std::string(kStoragePrefix).append(key));
}

}  // namespace ckptring::plan
