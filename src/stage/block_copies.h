// What has to be copied where, to put the file's bytes into blocks. The same for the ring and for
// the sync path, hence the same file from both.
#pragma once

#include "plan/file_plan.h"
#include "stage/copy_engine.h"
#include "stage/source.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ckptring::stage {

/// The copies of one or more blocks, by the place that they come from.
class BlockCopies {
 public:
  /// Copies from one device, in the order of the file.
  struct FromDevice {
    int device;
    std::vector<Copy> copies;
  };

  /// Adds the copies that fill `block` with the bytes [file_offset, file_offset + block.size()) of
  /// the file. Bytes that follow each other at both ends, also over two blocks, are one copy.
  /// @param sources by Payload::source
  void add(const plan::FilePlan& plan, std::span<const Source> sources, std::uint64_t file_offset,
           std::span<std::byte> block);

  /// Literal bytes of the plan, which must outlive the copies, and sources in host memory.
  [[nodiscard]] std::span<const Copy> from_host() const noexcept { return from_host_; }
  [[nodiscard]] std::span<const FromDevice> from_devices() const noexcept { return from_devices_; }

 private:
  std::vector<Copy>& from(int place);

  std::vector<Copy> from_host_;
  std::vector<FromDevice> from_devices_;
};

}  // namespace ckptring::stage
