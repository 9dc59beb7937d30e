// Where bytes that are read from a file go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace ckptring::store {

/// Called by several threads at a time, each for other bytes. Offsets count from the first byte of
/// the part that is read.
class ReadTarget {
 public:
  virtual ~ReadTarget() = default;
  /// Where the bytes from `offset` on may be read to straight away; null: they shall be taken.
  [[nodiscard]] virtual std::byte* memory(std::uint64_t offset) noexcept = 0;
  /// Takes bytes that lie in a window. They are gone after this.
  virtual void take(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
};

/// Memory of this process.
class HostTarget final : public ReadTarget {
 public:
  explicit HostTarget(std::byte* memory) noexcept : memory_(memory) {}

  [[nodiscard]] std::byte* memory(std::uint64_t offset) noexcept override {
    return memory_ + offset;
  }
  void take(std::uint64_t offset, std::span<const std::byte> bytes) override {
    std::memcpy(memory_ + offset, bytes.data(), bytes.size());
  }

 private:
  std::byte* memory_;
};

}  // namespace ckptring::store
