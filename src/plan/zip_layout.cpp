#include "plan/zip_layout.h"

#include "base/align.h"
#include "base/checksum.h"
#include "plan/zip_format.h"

#include <ckptring/error.h>

#include <limits>
#include <utility>

namespace ckptring::plan {
namespace {

/// The whole file must stay addressable by off_t.
constexpr auto kMaxFile = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

constexpr std::uint16_t flags(bool descriptor) {
  return static_cast<std::uint16_t>(zip::kFlagUtf8 | (descriptor ? zip::kFlagDescriptor : 0));
}

constexpr std::uint32_t field32(std::uint64_t value) {
  return value >= zip::kSee64 ? zip::kSee64 : static_cast<std::uint32_t>(value);
}

constexpr std::uint16_t field16(std::uint64_t value) {
  return value >= zip::kSee64Short ? zip::kSee64Short : static_cast<std::uint16_t>(value);
}

}  // namespace

void ZipLayout::expect(std::size_t payloads, std::size_t literal_bytes) {
  constexpr std::size_t kTypicalName = 20;
  constexpr std::size_t kLiteralRecords = 4;
  const std::size_t records = payloads + kLiteralRecords;
  entries_.reserve(records);
  payloads_.reserve(payloads);
  padding_.reserve(payloads);
  fixups_.reserve(2 * payloads);
  names_.reserve(records * kTypicalName);
  literals_.reserve(literal_bytes + 1024 +
                    records * (zip::kLocalSize + zip::kDescriptorSize + zip::kCentralSize +
                               2 * kTypicalName + zip::kExtraHeaderSize));
}

void ZipLayout::add_literal(std::string_view name, std::span<const std::byte> bytes) {
  begin_record(name, bytes.size(), base::crc32(bytes), -1);
  literals_.bytes(bytes);
}

void ZipLayout::add_payload(std::string_view name, std::uint64_t size, std::uint32_t source) {
  if (size == 0) {
    // Nothing to fill and its checksum is known: no payload, so that nobody waits for one.
    begin_record(name, 0, 0, -1);
    return;
  }
  const auto index = static_cast<std::uint32_t>(payloads_.size());
  begin_record(name, size, 0, index);
  payloads_.push_back({offset(), size, source});
  not_literal_ += size;

  fixups_.push_back({offset() + zip::kDescriptorCrcAt, index});
  if (size >= zip::kSee64) {
    Fields<zip::kDescriptor64Size> descriptor;
    descriptor.le32(zip::kDescriptorSignature).le32(0).le64(size).le64(size);
    literals_.bytes(descriptor.view());
  } else {
    const auto size32 = static_cast<std::uint32_t>(size);
    Fields<zip::kDescriptorSize> descriptor;
    descriptor.le32(zip::kDescriptorSignature).le32(0).le32(size32).le32(size32);
    literals_.bytes(descriptor.view());
  }
}

void ZipLayout::begin_record(std::string_view name, std::uint64_t size, std::uint32_t crc,
                             std::int64_t payload) {
  const std::uint64_t name_length = folder_.size() + 1 + name.size();
  if (size > kMaxFile - offset() - zip::kSee64 || name_length > 0xFFFF ||
      payload > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(ErrorCode::unsupported_value, "plan the file", "",
                "it would be larger than the format allows");
  }
  const Entry entry{offset(), size, crc, payload, static_cast<std::uint16_t>(name_length)};
  entries_.push_back(entry);
  names_ += folder_;
  names_ += '/';
  names_ += name;

  const bool large = size >= zip::kSee64;
  const bool descriptor = payload >= 0;
  // The checksum of a payload is not known here, and then the sizes follow it, too (bit 3).
  const std::uint64_t stated = descriptor ? 0 : size;
  const std::uint64_t extra64 = large ? zip::kExtraHeaderSize + 16 : 0;
  const std::uint64_t unit = size >= kLarge ? kPage : kAlignment;
  const std::uint64_t before_padding =
      offset() + zip::kLocalSize + name_length + extra64 + zip::kExtraHeaderSize;
  const std::uint64_t zeros = base::align_up(before_padding, unit) - before_padding;

  const std::uint32_t stated32 = large ? zip::kSee64 : static_cast<std::uint32_t>(stated);
  Fields<zip::kLocalSize> local;
  local.le32(zip::kLocalSignature)
      .le16(large ? zip::kVersion64 : zip::kVersion)
      .le16(flags(descriptor))
      .le16(zip::kMethodStored)
      .le16(0)
      .le16(zip::kDate)
      .le32(crc)
      .le32(stated32)
      .le32(stated32)
      .le16(entry.name_length)
      .le16(static_cast<std::uint16_t>(extra64 + zip::kExtraHeaderSize + zeros));
  literals_.bytes(local.view());
  literals_.text(folder_);
  literals_.u8('/');
  literals_.text(name);
  if (large) {
    literals_.le16(zip::kExtraZip64);
    literals_.le16(16);
    literals_.le64(stated);
    literals_.le64(stated);
  }
  literals_.le16(zip::kExtraPadding);
  literals_.le16(static_cast<std::uint16_t>(zeros));
  if (payload >= 0) {
    padding_.push_back(static_cast<std::uint16_t>(zeros));
    not_literal_ += zeros;
  } else {
    literals_.zeros(zeros);
  }
}

void ZipLayout::central_entry(const Entry& entry, std::string_view name) {
  const bool large = entry.size >= zip::kSee64;
  const bool far = entry.local_offset >= zip::kSee64;
  const auto extra = static_cast<std::uint16_t>((large ? 16 : 0) + (far ? 8 : 0));
  const std::uint16_t version = large || far ? zip::kVersion64 : zip::kVersion;

  if (entry.payload >= 0) {
    fixups_.push_back({offset() + zip::kCentralCrcAt, static_cast<std::uint32_t>(entry.payload)});
  }
  Fields<zip::kCentralSize> central;
  central.le32(zip::kCentralSignature)
      .le16(version)
      .le16(version)
      .le16(flags(entry.payload >= 0))
      .le16(zip::kMethodStored)
      .le16(0)
      .le16(zip::kDate)
      .le32(entry.crc)
      .le32(field32(entry.size))
      .le32(field32(entry.size))
      .le16(entry.name_length)
      .le16(extra == 0 ? 0 : static_cast<std::uint16_t>(zip::kExtraHeaderSize + extra))
      .le16(0)  // comment
      .le16(0)  // disk
      .le16(0)  // internal attributes
      .le32(0)  // external attributes
      .le32(field32(entry.local_offset));
  literals_.bytes(central.view());
  literals_.text(name);
  if (extra == 0) return;
  literals_.le16(zip::kExtraZip64);
  literals_.le16(extra);
  if (large) {
    literals_.le64(entry.size);
    literals_.le64(entry.size);
  }
  if (far) literals_.le64(entry.local_offset);
}

void ZipLayout::end_records(std::uint64_t central_offset, std::uint64_t central_size) {
  const std::uint64_t count = entries_.size();
  if (count >= zip::kSee64Short || central_offset >= zip::kSee64 || central_size >= zip::kSee64) {
    const std::uint64_t end64 = offset();
    literals_.le32(zip::kEnd64Signature);
    literals_.le64(zip::kEnd64Size - zip::kEnd64RemainingAt - 8);
    literals_.le16(zip::kVersion64);
    literals_.le16(zip::kVersion64);
    literals_.le32(0);
    literals_.le32(0);
    literals_.le64(count);
    literals_.le64(count);
    literals_.le64(central_size);
    literals_.le64(central_offset);

    literals_.le32(zip::kLocator64Signature);
    literals_.le32(0);
    literals_.le64(end64);
    literals_.le32(1);
  }
  literals_.le32(zip::kEndSignature);
  literals_.le16(0);
  literals_.le16(0);
  literals_.le16(field16(count));
  literals_.le16(field16(count));
  literals_.le32(field32(central_size));
  literals_.le32(field32(central_offset));
  literals_.le16(0);
}

FilePlan ZipLayout::finish() && {
  const std::uint64_t central_offset = offset();
  std::string_view names = names_;
  for (const Entry& entry : entries_) {
    central_entry(entry, names.substr(0, entry.name_length));
    names.remove_prefix(entry.name_length);
  }
  const std::uint64_t central_size = offset() - central_offset;
  if (central_size > zip::kMaxCentral) {
    throw Error(ErrorCode::unsupported_value, "plan the file", "",
                "its index exceeds 1 GiB: it would have too many records to be read again");
  }
  end_records(central_offset, central_size);
  const std::uint64_t total = offset();
  return FilePlan(literals_.take(), std::move(payloads_), std::move(fixups_), total, padding_);
}

}  // namespace ckptring::plan
