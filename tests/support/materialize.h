// Carries out a FilePlan in the simplest way there is: the oracle for all other writers.
#pragma once

#include "base/checksum.h"
#include "plan/file_plan.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace ckptring::test {

using Bytes = std::vector<std::byte>;

/// The file as it lies on disk. `storages[source]` are the bytes of each payload's source.
inline Bytes materialize(const plan::FilePlan& plan, std::span<const Bytes> storages) {
  Bytes file(plan.total_bytes());
  plan.for_each_piece(0, plan.total_bytes(), [&](const plan::FilePlan::Piece& piece) {
    const std::byte* const from =
        piece.literal != nullptr
            ? piece.literal
            : storages[plan.payloads()[piece.payload].source].data() + piece.payload_offset;
    std::memcpy(file.data() + piece.file_offset, from, piece.size);
  });
  for (const plan::Fixup& fixup : plan.fixups()) {
    const plan::Payload& payload = plan.payloads()[fixup.payload];
    const std::uint32_t crc =
        base::crc32(std::span(file).subspan(payload.file_offset, payload.size));
    std::memcpy(file.data() + fixup.file_offset, &crc, sizeof crc);
  }
  return file;
}

/// `size` bytes that differ from place to place and from seed to seed.
inline Bytes pattern(std::size_t size, std::uint32_t seed) {
  Bytes bytes(size);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

}  // namespace ckptring::test
