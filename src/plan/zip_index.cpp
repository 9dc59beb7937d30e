#include "plan/zip_index.h"

#include "base/align.h"
#include "plan/utf8.h"
#include "plan/zip_format.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace ckptring::plan {
namespace {

/// Bytes of a central directory; about 10 million records.
constexpr std::uint64_t kMaxCentral = std::uint64_t{1} << 30;

/// Little-endian fields at byte offsets of a header that was read whole.
class Header {
 public:
  explicit Header(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] std::uint16_t u16(std::uint64_t at) const { return get<std::uint16_t>(at); }
  [[nodiscard]] std::uint32_t u32(std::uint64_t at) const { return get<std::uint32_t>(at); }
  [[nodiscard]] std::uint64_t u64(std::uint64_t at) const { return get<std::uint64_t>(at); }

 private:
  template <class T>
  [[nodiscard]] T get(std::uint64_t at) const {
    T value;
    std::memcpy(&value, bytes_.subspan(at, sizeof value).data(), sizeof value);
    return value;
  }
  std::span<const std::byte> bytes_;
};

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Whether a tool that unpacks the archive would write outside of its folder.
bool leads_out(std::string_view name) {
  if (name.front() == '/') return true;
  for (;;) {
    const std::size_t slash = name.find('/');
    if (name.substr(0, slash) == "..") return true;
    if (slash == std::string_view::npos) return false;
    name.remove_prefix(slash + 1);
  }
}

/// Where the central directory is, and how many records it lists.
struct Central {
  std::uint64_t offset;
  std::uint64_t size;
  std::uint64_t records;
};

/// A record with the fields that its local header repeats.
struct Entry {
  std::string name;
  std::uint64_t size;
  std::uint64_t local_offset;
  std::uint32_t crc;
  std::uint16_t flags;
};

class IndexReader {
 public:
  explicit IndexReader(const ByteSource& source) : source_(source) {}

  std::vector<Record> read() {
    const Central central = find_central();
    std::vector<Entry> entries = read_central(central);
    // Duplicates would let two readers see two different files.
    std::vector<std::string_view> names;
    names.reserve(entries.size());
    for (const Entry& entry : entries) names.push_back(entry.name);
    std::sort(names.begin(), names.end());
    if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
      damaged(*twice, "the name comes twice");
    }
    const std::string folder = top_folder(entries);

    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.local_offset < b.local_offset; });
    std::vector<Record> records;
    records.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
      Entry& entry = entries[i];
      const std::uint64_t end =
          i + 1 < entries.size() ? entries[i + 1].local_offset : central.offset;
      const std::uint64_t data = data_offset(entry, end);
      if (entry.name.back() == '/') continue;  // a folder, which holds nothing
      records.push_back({entry.name.substr(folder.size()), data, entry.size, entry.crc});
    }
    return records;
  }

 private:
  [[noreturn]] void fail(ErrorCode code, std::string what) const {
    throw Error(code, "read", source_.path(), std::move(what));
  }
  [[noreturn]] void damaged(std::string what) const { fail(ErrorCode::damaged, std::move(what)); }
  [[noreturn]] void damaged(std::string_view record, std::string_view what) const {
    fail(ErrorCode::damaged, fmt::format("record {}: {}", record, what));
  }

  /// Not a zip archive: says what it is instead, if that is known.
  [[noreturn]] void no_end_record() const {
    std::array<std::byte, 8> start{};
    const auto length = std::min<std::uint64_t>(start.size(), source_.size());
    source_.read(0, std::span(start).first(length));
    constexpr std::string_view kZip = "PK\3\4";
    // The number that torch.save wrote first before it wrote zip archives, pickled.
    constexpr std::string_view kLegacy = "\x80\x02\x8a\x0al\xfc\x9c\x46";
    const std::string_view text = as_text(start);
    if (length == 0) damaged("the file is empty");
    if (text == kLegacy) {
      fail(ErrorCode::unsupported_value,
           "it is a torch file of the old format that is not a zip archive; load it with torch "
           "and save it again");
    }
    if (text.starts_with(kZip)) {
      damaged("the end of central directory record is missing: the file is cut off");
    }
    damaged("it is not a zip archive");
  }

  Central find_central() const {
    const std::uint64_t size = source_.size();
    if (size < zip::kEndSize) no_end_record();
    const std::uint64_t tail_size = std::min(size, zip::kEndSize + zip::kMaxComment);
    std::vector<std::byte> tail(tail_size);
    source_.read(size - tail_size, tail);
    for (std::uint64_t at = tail_size - zip::kEndSize;; --at) {
      const Header end(std::span<const std::byte>(tail).subspan(at));
      if (end.u32(0) == zip::kEndSignature &&
          at + zip::kEndSize + end.u16(zip::kEndCommentLengthAt) == tail_size) {
        return central_of(end, size - tail_size + at);
      }
      if (at == 0) no_end_record();
    }
  }

  Central central_of(const Header& end, std::uint64_t end_offset) const {
    const std::uint16_t records = end.u16(zip::kEndRecordsAt);
    const std::uint32_t size = end.u32(zip::kEndCentralSizeAt);
    const std::uint32_t offset = end.u32(zip::kEndCentralOffsetAt);
    std::uint64_t limit = end_offset;
    Central central{offset, size, records};
    if (const std::optional<std::uint64_t> end64_offset = find_end64(end_offset)) {
      limit = *end64_offset;
      std::array<std::byte, zip::kEnd64Size> bytes{};
      source_.read(limit, bytes);
      const Header end64(bytes);
      if (end64.u32(0) != zip::kEnd64Signature) damaged("zip64 end record: wrong signature");
      if (end64.u64(zip::kEnd64RemainingAt) !=
          end_offset - zip::kLocator64Size - limit - zip::kEnd64RemainingAt - 8) {
        damaged("zip64 end record: wrong size");
      }
      if (end64.u32(zip::kEnd64DiskAt) != 0 || end64.u32(zip::kEnd64CentralDiskAt) != 0 ||
          end64.u64(zip::kEnd64DiskRecordsAt) != end64.u64(zip::kEnd64RecordsAt)) {
        fail(ErrorCode::unsupported_value, "the zip archive is spread over several disks");
      }
      central = {end64.u64(zip::kEnd64CentralOffsetAt), end64.u64(zip::kEnd64CentralSizeAt),
                 end64.u64(zip::kEnd64RecordsAt)};
      if ((records != zip::kSee64Short && records != central.records) ||
          (size != zip::kSee64 && size != central.size) ||
          (offset != zip::kSee64 && offset != central.offset) ||
          end.u16(zip::kEndDiskRecordsAt) != records) {
        damaged("the two end records do not agree");
      }
      for (const std::uint64_t at : {zip::kEndDiskAt, zip::kEndCentralDiskAt}) {
        if (end.u16(at) != 0 && end.u16(at) != zip::kSee64Short) {
          fail(ErrorCode::unsupported_value, "the zip archive is spread over several disks");
        }
      }
    } else if (records == zip::kSee64Short || size == zip::kSee64 || offset == zip::kSee64) {
      damaged("the zip64 end record is missing");
    } else if (end.u16(zip::kEndDiskAt) != 0 || end.u16(zip::kEndCentralDiskAt) != 0 ||
               end.u16(zip::kEndDiskRecordsAt) != records) {
      fail(ErrorCode::unsupported_value, "the zip archive is spread over several disks");
    }
    if (central.size > limit || central.offset != limit - central.size) {
      damaged("end record: the central directory does not end where the end record begins");
    }
    if (central.records > central.size / zip::kCentralSize) {
      damaged(fmt::format("end record: {} records do not fit into a central directory of {} bytes",
                          central.records, central.size));
    }
    if (central.size > kMaxCentral) {
      fail(ErrorCode::unsupported_value, "the central directory exceeds 1 GiB");
    }
    if (central.records == 0) damaged("the archive has no records");
    return central;
  }

  /// File offset of the zip64 end record, if there is one.
  std::optional<std::uint64_t> find_end64(std::uint64_t end_offset) const {
    if (end_offset < zip::kLocator64Size + zip::kEnd64Size) return std::nullopt;
    std::array<std::byte, zip::kLocator64Size> bytes{};
    source_.read(end_offset - zip::kLocator64Size, bytes);
    const Header locator(bytes);
    if (locator.u32(0) != zip::kLocator64Signature) return std::nullopt;
    const std::uint64_t offset = locator.u64(zip::kLocator64EndOffsetAt);
    if (offset > end_offset - zip::kLocator64Size - zip::kEnd64Size) {
      damaged("zip64 locator: it points outside of the file");
    }
    if (locator.u32(zip::kLocator64DiskAt) != 0 || locator.u32(zip::kLocator64DisksAt) > 1) {
      fail(ErrorCode::unsupported_value, "the zip archive is spread over several disks");
    }
    return offset;
  }

  std::vector<Entry> read_central(const Central& central) const {
    std::vector<std::byte> bytes(central.size);
    source_.read(central.offset, bytes);
    std::span<const std::byte> rest(bytes);
    std::vector<Entry> entries;
    entries.reserve(central.records);
    for (std::uint64_t i = 0; i < central.records; ++i) {
      const auto cut_off = [&] {
        damaged(fmt::format("central directory, record {} of {}: it is cut off", i + 1,
                            central.records));
      };
      if (rest.size() < zip::kCentralSize) cut_off();
      const Header header(rest);
      if (header.u32(0) != zip::kCentralSignature) {
        damaged(fmt::format("central directory, record {} of {}: wrong signature", i + 1,
                            central.records));
      }
      const std::uint64_t name_length = header.u16(zip::kCentralNameLengthAt);
      const std::uint64_t extra_length = header.u16(zip::kCentralExtraLengthAt);
      const std::uint64_t length =
          zip::kCentralSize + name_length + extra_length + header.u16(zip::kCentralCommentLengthAt);
      if (rest.size() < length) cut_off();
      entries.push_back(entry_of(header, as_text(rest.subspan(zip::kCentralSize, name_length)),
                                 rest.subspan(zip::kCentralSize + name_length, extra_length),
                                 central.offset));
      rest = rest.subspan(length);
    }
    if (!rest.empty()) damaged("central directory: bytes follow the last record");
    return entries;
  }

  Entry entry_of(const Header& header, std::string_view name, std::span<const std::byte> extra,
                 std::uint64_t central_offset) const {
    if (name.empty() || !is_utf8(name) || name.find('\0') != std::string_view::npos) {
      damaged("central directory: a name is not text");
    }
    if (leads_out(name)) damaged(name, "its name leads out of the archive");
    const std::uint16_t flags = header.u16(zip::kCentralFlagsAt);
    if ((flags & (zip::kFlagEncrypted | zip::kFlagStrongEncryption | zip::kFlagHiddenHeaders)) !=
        0) {
      fail(ErrorCode::unsupported_value, fmt::format("record {}: it is encrypted", name));
    }
    if ((flags & zip::kFlagPatched) != 0) {
      fail(ErrorCode::unsupported_value, fmt::format("record {}: it is a patch", name));
    }
    if (const std::uint16_t method = header.u16(zip::kCentralMethodAt);
        method != zip::kMethodStored) {
      fail(ErrorCode::unsupported_value,
           fmt::format("record {}: it is compressed (method {}), only stored records are read",
                       name, method));
    }
    if (header.u16(zip::kCentralDiskAt) != 0) {
      fail(ErrorCode::unsupported_value, fmt::format("record {}: it is on another disk", name));
    }
    const std::uint32_t stored32 = header.u32(zip::kCentralStoredSizeAt);
    const std::uint32_t full32 = header.u32(zip::kCentralFullSizeAt);
    const std::uint32_t offset32 = header.u32(zip::kCentralLocalOffsetAt);
    std::uint64_t stored = stored32;
    std::uint64_t full = full32;
    std::uint64_t offset = offset32;
    if (stored32 == zip::kSee64 || full32 == zip::kSee64 || offset32 == zip::kSee64) {
      // Only what does not fit is in there, in this order.
      std::span<const std::byte> fields = zip64_field(name, extra);
      const auto take = [&](std::uint64_t& value) {
        if (fields.size() < 8) damaged(name, "its zip64 field is too short");
        value = Header(fields).u64(0);
        fields = fields.subspan(8);
      };
      if (full32 == zip::kSee64) take(full);
      if (stored32 == zip::kSee64) take(stored);
      if (offset32 == zip::kSee64) take(offset);
    }
    if (stored != full) damaged(name, "it is stored, but its two sizes differ");
    if (offset >= central_offset || full > central_offset - offset) {
      damaged(name, fmt::format("offset {} and size {} leave the file", offset, full));
    }
    return {std::string(name), full, offset, header.u32(zip::kCentralCrcAt), flags};
  }

  std::span<const std::byte> zip64_field(std::string_view name,
                                         std::span<const std::byte> extra) const {
    while (extra.size() >= zip::kExtraHeaderSize) {
      const Header header(extra);
      const std::uint64_t length = header.u16(2);
      extra = extra.subspan(zip::kExtraHeaderSize);
      if (length > extra.size()) break;
      if (header.u16(0) == zip::kExtraZip64) return extra.first(length);
      extra = extra.subspan(length);
    }
    damaged(name, "its zip64 field is missing");
  }

  /// The first component of every name, with the slash.
  std::string top_folder(const std::vector<Entry>& entries) const {
    const std::size_t slash = entries.front().name.find('/');
    if (slash == std::string::npos) {
      damaged(entries.front().name, "it is in no top folder, as the records of torch are");
    }
    std::string folder = entries.front().name.substr(0, slash + 1);
    for (const Entry& entry : entries) {
      if (!entry.name.starts_with(folder)) {
        damaged(entry.name, "it is outside of the archive's top folder " + folder);
      }
    }
    return folder;
  }

  /// Checks the local header against the entry. `end` is where the next record begins.
  std::uint64_t data_offset(const Entry& entry, std::uint64_t end) const {
    const std::uint64_t begin = entry.local_offset;
    const std::uint64_t fixed = zip::kLocalSize + entry.name.size();
    if (end - begin < fixed) damaged(entry.name, "it overlaps the next record");
    local_.resize(fixed);
    source_.read(begin, local_);
    const Header local(local_);
    if (local.u32(0) != zip::kLocalSignature) {
      damaged(entry.name, "its local header has a wrong signature");
    }
    if (local.u16(zip::kLocalNameLengthAt) != entry.name.size() ||
        as_text(std::span(local_).subspan(zip::kLocalSize)) != entry.name) {
      damaged(entry.name, "its local header has another name");
    }
    if (local.u16(zip::kLocalFlagsAt) != entry.flags) {
      damaged(entry.name, "its local header has other flags");
    }
    if (local.u16(zip::kLocalMethodAt) != zip::kMethodStored) {
      damaged(entry.name, "its local header has another method");
    }
    // With a descriptor these may be zero; the descriptor and the central directory have them.
    const bool descriptor = (entry.flags & zip::kFlagDescriptor) != 0;
    const auto agrees = [descriptor](std::uint64_t stated, std::uint64_t value) {
      return stated == value || (descriptor && stated == 0);
    };
    if (!agrees(local.u32(zip::kLocalCrcAt), entry.crc)) {
      damaged(entry.name, "its local header has another checksum");
    }
    const std::uint64_t extra_length = local.u16(zip::kLocalExtraLengthAt);
    const std::uint64_t data = begin + fixed + extra_length;
    if (data > end || entry.size > end - data) {
      damaged(entry.name, "it overlaps the next record");
    }
    // Only what does not fit is in the zip64 field: the full size before the stored one.
    std::uint64_t in_zip64 = 0;
    for (const std::uint64_t at : {zip::kLocalFullSizeAt, zip::kLocalStoredSizeAt}) {
      std::uint64_t stated = local.u32(at);
      if (stated == zip::kSee64) {
        stated = local_size64(entry, begin + fixed, extra_length, in_zip64);
        in_zip64 += 8;
      }
      if (!agrees(stated, entry.size)) {
        damaged(entry.name, "its local header has another size");
      }
    }
    // Where the payload begins is stated once only. So what lies behind it must be what belongs
    // there, or a wrong length of the extra field would give the payload's neighbours for it.
    const std::uint64_t behind = data + entry.size;
    if (descriptor) {
      check_descriptor(entry, behind, end);
    } else if (behind != end) {
      damaged(entry.name, "bytes that belong to no record follow it");
    }
    return data;
  }

  /// A size that the local header refers to its zip64 field for.
  std::uint64_t local_size64(const Entry& entry, std::uint64_t extra_offset,
                             std::uint64_t extra_length, std::uint64_t at) const {
    std::vector<std::byte> extra(extra_length);
    source_.read(extra_offset, extra);
    const std::span<const std::byte> fields = zip64_field(entry.name, extra);
    if (fields.size() < at + 8) damaged(entry.name, "its zip64 field is too short");
    return Header(fields).u64(at);
  }

  /// Its signature may be left out; its sizes have 32 or 64 bits.
  void check_descriptor(const Entry& entry, std::uint64_t offset, std::uint64_t end) const {
    // With what stands before it, which is the local header at least.
    constexpr std::uint64_t kSignature = 4;
    std::array<std::byte, kSignature + zip::kDescriptor64Size> buffer{};
    const auto bytes =
        std::span(buffer).first(kSignature + std::min(zip::kDescriptor64Size, end - offset));
    source_.read(offset - kSignature, bytes);
    const auto signed_at = [&](std::uint64_t at) {
      return at + kSignature <= bytes.size() &&
             Header(bytes.subspan(at)).u32(0) == zip::kDescriptorSignature;
    };
    const auto agrees = [&](std::uint64_t at, std::uint64_t size_bytes) {
      if (at + 4 + 2 * size_bytes > bytes.size()) return false;
      const Header descriptor(bytes.subspan(at));
      const auto size = [&](std::uint64_t size_at) {
        return size_bytes == 8 ? descriptor.u64(size_at) : descriptor.u32(size_at);
      };
      return descriptor.u32(0) == entry.crc && size(4) == entry.size &&
             size(4 + size_bytes) == entry.size;
    };
    const std::uint64_t behind = 2 * kSignature;
    if (signed_at(kSignature) && (agrees(behind, 4) || agrees(behind, 8))) return;
    // A signature right before would make this the rest of a descriptor that begins earlier.
    if (!signed_at(0) && (agrees(kSignature, 4) || agrees(kSignature, 8))) return;
    damaged(entry.name, "its data descriptor does not agree with the central directory");
  }

  const ByteSource& source_;
  mutable std::vector<std::byte> local_;
};

}  // namespace

std::vector<Record> read_zip_index(const ByteSource& source) { return IndexReader(source).read(); }

}  // namespace ckptring::plan
