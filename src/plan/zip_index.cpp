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

/// How far from the end of a file an end record is looked for, where it is not at the end: what may
/// have been appended.
constexpr std::uint64_t kMaxAppended = std::uint64_t{16} << 20;

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

/// What a file that is no zip archive is instead, and what to do, as far as its beginning tells.
/// Empty if it does not.
std::string_view kind_of(std::string_view text, std::uint64_t file_bytes) {
  using namespace std::string_view_literals;
  // The number that torch.save wrote first before it wrote zip archives, pickled in each protocol.
  constexpr std::string_view kNumber = "\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19."sv;
  constexpr std::string_view kFrame = "\x95\x0d\0\0\0\0\0\0\0"sv;
  const auto pickled = [&](char protocol) {
    return text.size() > 2 && text[0] == '\x80' && text[1] == protocol;
  };
  const bool legacy = text.starts_with("L119547037146038801333356L\n") ||
                      ((pickled(2) || pickled(3)) && text.substr(2).starts_with(kNumber)) ||
                      ((pickled(4) || pickled(5)) && text.substr(2).starts_with(kFrame) &&
                       text.substr(2 + kFrame.size()).starts_with(kNumber));
  if (legacy) {
    return "it is a torch file of the old format that is not a zip archive; load it with torch and "
           "save it again";
  }
  if (pickled(2) || pickled(3) || pickled(4) || pickled(5)) {
    return "it is a pickle alone, not an archive as torch.save writes it; load it with Python's "
           "pickle and save it with torch.save";
  }
  if (text.substr(std::min<std::size_t>(text.size(), 257)).starts_with("ustar")) {
    return "it is a tar archive; if torch of 2016 wrote it, load it with torch and save it again";
  }
  if (text.size() > 8 && text[8] == '{') {
    std::uint64_t header = 0;
    std::memcpy(&header, text.data(), sizeof header);
    if (header <= file_bytes - sizeof header) {
      return "it is a safetensors file; load it with safetensors and save it with torch.save";
    }
  }
  return {};
}

/// A record with the fields that its local header repeats.
struct Entry {
  std::string name;
  std::uint64_t size;
  std::uint64_t local_offset;
  std::uint32_t crc;
  std::uint16_t flags;
  std::uint16_t method;
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
    refuse_other_kinds(entries, folder);

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

  [[noreturn]] void no_end_record() const {
    std::array<std::byte, 512> start{};
    const auto length = std::min<std::uint64_t>(start.size(), source_.size());
    source_.read(0, std::span(start).first(length));
    if (length == 0) damaged("the file is empty");
    const std::string_view text = as_text(std::span(start).first(length));
    if (text.starts_with("PK\3\4")) {
      refuse_appended();
      damaged(source_.size() <= kMaxAppended
                  ? "the end of central directory record is missing: the file is cut off"
                  : "the end of central directory record is missing: the file is cut off, or more "
                    "than 16 MiB were appended to it");
    }
    if (const std::string_view kind = kind_of(text, source_.size()); !kind.empty()) {
      fail(ErrorCode::unsupported_value, std::string(kind));
    }
    damaged("it is not a zip archive");
  }

  /// Says so if an end record is there, but not at the end.
  void refuse_appended() const {
    constexpr std::uint64_t kStep = std::uint64_t{64} << 10;
    constexpr std::string_view kSignature = "PK\5\6";
    const std::uint64_t size = source_.size();
    std::vector<std::byte> bytes;
    for (std::uint64_t end = size; end > 0 && size - end < kMaxAppended;) {
      const std::uint64_t begin = end - std::min(end, kStep);
      // With what belongs to a signature that is at `begin`, or begins before `end`.
      const std::uint64_t before = std::min(begin, zip::kLocator64Size);
      bytes.resize(std::min(size, end + zip::kEndSize - 1) - (begin - before));
      source_.read(begin - before, bytes);
      const std::string_view text = as_text(bytes);
      for (std::size_t at = text.rfind(kSignature); at != std::string_view::npos && at >= before;
           at = at == 0 ? std::string_view::npos : text.rfind(kSignature, at - 1)) {
        if (text.size() - at < zip::kEndSize) continue;
        const std::uint64_t offset = begin - before + at;
        const std::uint64_t length =
            zip::kEndSize +
            Header(std::span<const std::byte>(bytes).subspan(at)).u16(zip::kEndCommentLengthAt);
        if (length >= size - offset || !ends_an_archive(bytes, at, offset)) continue;
        damaged(fmt::format("{} bytes follow the end of the archive: something was appended to it",
                            size - offset - length));
      }
      end = begin;
    }
  }

  /// Whether the end record at `offset` of the file, and `at` of the bytes, is this file's, not one
  /// of an archive in a payload. The bytes have what may lie before it.
  static bool ends_an_archive(std::span<const std::byte> bytes, std::size_t at,
                              std::uint64_t offset) {
    const Header record(bytes.subspan(at));
    const std::uint64_t size = record.u32(zip::kEndCentralSizeAt);
    if (size <= offset && record.u32(zip::kEndCentralOffsetAt) == offset - size) return true;
    if (offset < zip::kLocator64Size + zip::kEnd64Size) return false;
    const Header locator(bytes.subspan(at - zip::kLocator64Size));
    return locator.u32(0) == zip::kLocator64Signature &&
           locator.u64(zip::kLocator64EndOffsetAt) ==
               offset - zip::kLocator64Size - zip::kEnd64Size;
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
    if (central.size > zip::kMaxCentral) {
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
    const std::uint16_t method = header.u16(zip::kCentralMethodAt);
    if (method == zip::kMethodStored && stored != full) {
      damaged(name, "it is stored, but its two sizes differ");
    }
    if (offset >= central_offset || stored > central_offset - offset) {
      damaged(name, fmt::format("offset {} and size {} leave the file", offset, full));
    }
    return {std::string(name), full, offset, header.u32(zip::kCentralCrcAt), flags, method};
  }

  /// Archives that look like torch.save's and are not, and records that cannot be read.
  void refuse_other_kinds(const std::vector<Entry>& entries, const std::string& folder) const {
    for (const Entry& entry : entries) {
      const std::string_view name = std::string_view(entry.name).substr(folder.size());
      if (name == "constants.pkl" || name.starts_with("code/")) {
        fail(ErrorCode::unsupported_value,
             "it is a TorchScript archive, as torch::save of C++ and torch.jit.save write it: load "
             "it with torch::load or torch.jit.load, and save its tensors by themselves");
      }
    }
    for (const Entry& entry : entries) {
      if (entry.method == zip::kMethodStored) continue;
      fail(ErrorCode::unsupported_value,
           fmt::format("record {}: it is compressed (method {}), only stored records are read",
                       entry.name, entry.method));
    }
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
