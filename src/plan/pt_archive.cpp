#include "plan/pt_archive.h"

#include "base/checksum.h"
#include "plan/checkpoint_json.h"
#include "plan/pickle_reader.h"
#include "plan/record_names.h"
#include "plan/tensor_bounds.h"
#include "plan/zip_index.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <span>
#include <utility>

namespace ckptring::plan {
namespace {

constexpr std::uint64_t kMaxWord = 64;

std::vector<std::byte> read_record(const ByteSource& source, const Record& record,
                                   std::uint64_t most) {
  if (record.size > most) {
    throw Error(
        ErrorCode::unsupported_value, "read", source.path(),
        fmt::format("record {}: {} bytes exceed the limit of {}", record.name, record.size, most));
  }
  std::vector<std::byte> bytes(record.size);
  source.read(record.data_offset, bytes);
  if (base::crc32(bytes) != record.crc32) {
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
  archive.info_.path = source.path();
  // First: a newer format may differ in all that follows.
  if (const Record* const record = archive.find(kInfoRecord)) {
    archive.info_ = from_json(as_text(read_record(source, *record, kMaxJson)), source.path());
  }
  if (const Record* const record = archive.find(kByteOrderRecord)) {
    const std::vector<std::byte> bytes = read_record(source, *record, kMaxWord);
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

Value PtArchive::read_value(const ByteSource& source) const {
  const std::vector<std::byte> pickle = read_record(source, *find(kPickleRecord), kMaxPickle);
  std::string name;
  return read_pickle(pickle, source.path(), [&](Tensor& tensor) -> std::optional<std::string> {
    name = kStoragePrefix;
    name += tensor.storage_key;
    const Record* const record = find(name);
    if (record == nullptr) return fmt::format("record {} is missing", name);
    // torch counts whole elements; its record may end with a part of one.
    if (record->size < tensor.storage_bytes ||
        record->size - tensor.storage_bytes >= element_size(tensor.dtype)) {
      return fmt::format("record {} has {} bytes, its storage {}", name, record->size,
                         tensor.storage_bytes);
    }
    tensor.storage_bytes = record->size;
    return tensor_problem(tensor);
  });
}

}  // namespace ckptring::plan
