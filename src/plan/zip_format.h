// The fields of a zip archive (PKWARE's APPNOTE), as far as they are written or read here. All
// numbers are little-endian. `k...At` are byte offsets within a header.
#pragma once

#include <cstdint>

namespace ckptring::plan::zip {

inline constexpr std::uint32_t kLocalSignature = 0x04034b50;
inline constexpr std::uint64_t kLocalSize = 30;
inline constexpr std::uint64_t kLocalFlagsAt = 6;
inline constexpr std::uint64_t kLocalMethodAt = 8;
inline constexpr std::uint64_t kLocalCrcAt = 14;
inline constexpr std::uint64_t kLocalStoredSizeAt = 18;
inline constexpr std::uint64_t kLocalFullSizeAt = 22;
inline constexpr std::uint64_t kLocalNameLengthAt = 26;
inline constexpr std::uint64_t kLocalExtraLengthAt = 28;

inline constexpr std::uint32_t kDescriptorSignature = 0x08074b50;
inline constexpr std::uint64_t kDescriptorSize = 16;
inline constexpr std::uint64_t kDescriptor64Size = 24;
inline constexpr std::uint64_t kDescriptorCrcAt = 4;

inline constexpr std::uint32_t kCentralSignature = 0x02014b50;
inline constexpr std::uint64_t kCentralSize = 46;
inline constexpr std::uint64_t kCentralFlagsAt = 8;
inline constexpr std::uint64_t kCentralMethodAt = 10;
inline constexpr std::uint64_t kCentralCrcAt = 16;
inline constexpr std::uint64_t kCentralStoredSizeAt = 20;
inline constexpr std::uint64_t kCentralFullSizeAt = 24;
inline constexpr std::uint64_t kCentralNameLengthAt = 28;
inline constexpr std::uint64_t kCentralExtraLengthAt = 30;
inline constexpr std::uint64_t kCentralCommentLengthAt = 32;
inline constexpr std::uint64_t kCentralDiskAt = 34;
inline constexpr std::uint64_t kCentralLocalOffsetAt = 42;
/// Bytes that a central directory may have; more than 10 million records.
inline constexpr std::uint64_t kMaxCentral = std::uint64_t{1} << 30;

inline constexpr std::uint32_t kEndSignature = 0x06054b50;
inline constexpr std::uint64_t kEndSize = 22;
inline constexpr std::uint64_t kEndDiskAt = 4;
inline constexpr std::uint64_t kEndCentralDiskAt = 6;
inline constexpr std::uint64_t kEndDiskRecordsAt = 8;
inline constexpr std::uint64_t kEndRecordsAt = 10;
inline constexpr std::uint64_t kEndCentralSizeAt = 12;
inline constexpr std::uint64_t kEndCentralOffsetAt = 16;
inline constexpr std::uint64_t kEndCommentLengthAt = 20;
inline constexpr std::uint64_t kMaxComment = 0xFFFF;

inline constexpr std::uint32_t kEnd64Signature = 0x06064b50;
inline constexpr std::uint64_t kEnd64Size = 56;
inline constexpr std::uint64_t kEnd64RemainingAt = 4;
inline constexpr std::uint64_t kEnd64DiskAt = 16;
inline constexpr std::uint64_t kEnd64CentralDiskAt = 20;
inline constexpr std::uint64_t kEnd64DiskRecordsAt = 24;
inline constexpr std::uint64_t kEnd64RecordsAt = 32;
inline constexpr std::uint64_t kEnd64CentralSizeAt = 40;
inline constexpr std::uint64_t kEnd64CentralOffsetAt = 48;

inline constexpr std::uint32_t kLocator64Signature = 0x07064b50;
inline constexpr std::uint64_t kLocator64Size = 20;
inline constexpr std::uint64_t kLocator64DiskAt = 4;
inline constexpr std::uint64_t kLocator64EndOffsetAt = 8;
inline constexpr std::uint64_t kLocator64DisksAt = 16;

inline constexpr std::uint16_t kFlagEncrypted = 1U << 0;
inline constexpr std::uint16_t kFlagDescriptor = 1U << 3;
inline constexpr std::uint16_t kFlagPatched = 1U << 5;
inline constexpr std::uint16_t kFlagStrongEncryption = 1U << 6;
inline constexpr std::uint16_t kFlagUtf8 = 1U << 11;
inline constexpr std::uint16_t kFlagHiddenHeaders = 1U << 13;

inline constexpr std::uint16_t kMethodStored = 0;

inline constexpr std::uint16_t kExtraZip64 = 0x0001;
/// "FB": torch pads with this one, too.
inline constexpr std::uint16_t kExtraPadding = 0x4246;
inline constexpr std::uint64_t kExtraHeaderSize = 4;

/// In a 16 or 32 bit field: the value stands in the zip64 field instead.
inline constexpr std::uint16_t kSee64Short = 0xFFFF;
inline constexpr std::uint32_t kSee64 = 0xFFFFFFFF;

inline constexpr std::uint16_t kVersion = 20;
inline constexpr std::uint16_t kVersion64 = 45;
/// 1980-01-01, the first that the format knows: a file must not depend on when it was written.
inline constexpr std::uint16_t kDate = 0x0021;

}  // namespace ckptring::plan::zip
