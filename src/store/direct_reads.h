// Reading what the page cache does not hold: straight from the disk (O_DIRECT), past the cache.
//
// That takes less processor time than going through the cache, and does not fill the cache with
// what is needed once. What the cache does hold is quicker to be had from there.
#pragma once

#include "os/uninherited_fd.h"
#include "store/file_source.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::store {

/// Thread-safe.
class DirectReads {
 public:
  /// What the offset, the size and the memory of a direct read are multiples of.
  static constexpr std::uint64_t kUnit = 4096;

  /// `source` outlives this. Never fails: where direct reads do not work, no range is cold.
  explicit DirectReads(const FileSource& source);
  ~DirectReads();
  DirectReads(const DirectReads&) = delete;
  DirectReads& operator=(const DirectReads&) = delete;

  /// Whether [offset, offset + size) is better read by `read`. Looks at its first and last page
  /// only: a wrong guess costs time, nothing else.
  [[nodiscard]] bool cold(std::uint64_t offset, std::uint64_t size) const noexcept;

  /// Reads into `window` from `offset` on. Both are multiples of kUnit, and so is the address.
  /// @return how many bytes it got. The page cache has the rest, if there is one: the file may end,
  ///         or direct reads turn out not to work here, and no range is cold from then on
  /// @throws Error io
  [[nodiscard]] std::size_t read(std::uint64_t offset, std::span<std::byte> window) const;

 private:
  const FileSource& source_;
  os::UninheritedFd fd_;
  void* mapping_ = nullptr;  ///< of the whole file, without access: only to ask about its pages
  mutable std::atomic<bool> works_{false};
};

}  // namespace ckptring::store
