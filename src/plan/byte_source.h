// Random access to the bytes of a file, so that parsing knows nothing of system calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ckptring::plan {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  [[nodiscard]] virtual std::uint64_t size() const = 0;
  /// For error messages.
  [[nodiscard]] virtual const std::string& path() const = 0;
  /// Fills `bytes` from `offset`. Thread-safe.
  /// @throws Error io, or damaged if the file ends before
  virtual void read(std::uint64_t offset, std::span<std::byte> bytes) const = 0;
};

}  // namespace ckptring::plan
