// Lays out a zip archive of stored records, record by record, without seeing the payloads.
#pragma once

#include "plan/byte_writer.h"
#include "plan/file_plan.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {

class ZipLayout {
 public:
  /// Payload data start at multiples of kAlignment, large ones at multiples of kPage, so that
  /// they can be mapped and read past the page cache.
  static constexpr std::uint64_t kAlignment = 64;
  static constexpr std::uint64_t kPage = 4096;
  static constexpr std::uint64_t kLarge = 64 * 1024;

  /// @param folder the top folder of all records, without a slash
  explicit ZipLayout(std::string folder) : folder_(std::move(folder)) {}

  /// What will come, about: saves growing again and again.
  void expect(std::size_t payloads, std::size_t literal_bytes);

  /// A record whose bytes are known.
  /// @throws Error unsupported_value if the file becomes larger than 2^63 bytes
  void add_literal(std::string_view name, std::span<const std::byte> bytes);
  /// A record that is filled from `source` later. An empty one becomes no payload.
  void add_payload(std::string_view name, std::uint64_t size, std::uint32_t source);

  /// Writes the central directory. The layout is spent.
  /// @throws Error unsupported_value if it becomes larger than it may be
  [[nodiscard]] FilePlan finish() &&;

 private:
  struct Entry {
    std::uint64_t local_offset;
    std::uint64_t size;
    std::uint32_t crc;
    std::int64_t payload;  ///< index of the payload whose CRC goes here, -1: `crc` is it
    std::uint16_t name_length;
  };

  [[nodiscard]] std::uint64_t offset() const noexcept { return literals_.size() + not_literal_; }
  void begin_record(std::string_view name, std::uint64_t size, std::uint32_t crc,
                    std::int64_t payload);
  void central_entry(const Entry& entry, std::string_view name);
  void end_records(std::uint64_t central_offset, std::uint64_t central_size);

  std::string folder_;
  ByteWriter literals_;
  std::uint64_t not_literal_ = 0;  ///< bytes of payloads and of padding so far
  std::vector<Entry> entries_;
  std::string names_;  ///< of all entries, one after the other
  std::vector<Payload> payloads_;
  std::vector<std::uint16_t> padding_;
  std::vector<Fixup> fixups_;
};

}  // namespace ckptring::plan
