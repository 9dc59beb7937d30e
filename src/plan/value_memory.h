// What values take once they are libtorch's objects, about, without the elements of tensors. A
// byte of a pickle makes an empty dict, and that takes half a KiB: so there is a limit, which the
// writer keeps as well, and which no state comes near but one that is made of empty containers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ckptring::plan {

class ValueMemory {
 public:
  void add_list() noexcept { bytes_ += 96; }
  void add_tuple() noexcept { bytes_ += 128; }
  /// @param slots as dict_slots has them
  void add_dict(std::uint64_t slots) noexcept { bytes_ += 256 + 56 * slots; }
  /// What a list or tuple holds.
  void add_items(std::uint64_t count) noexcept { bytes_ += 16 * count; }
  void add_tensor(std::size_t dimensions) noexcept { bytes_ += 512 + 16 * dimensions; }

  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  /// The most for a pickle of so many bytes.
  static constexpr std::uint64_t limit(std::uint64_t pickle_bytes) noexcept {
    return (std::uint64_t{64} << 20) + 64 * pickle_bytes;
  }

 private:
  std::uint64_t bytes_ = 0;
};

}  // namespace ckptring::plan
