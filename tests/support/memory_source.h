// A file that is only in memory.
#pragma once

#include "plan/byte_source.h"

#include <ckptring/error.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::test {

class MemorySource final : public plan::ByteSource {
 public:
  explicit MemorySource(std::vector<std::byte> bytes, std::string path = "/memory/file.pt")
      : bytes_(std::move(bytes)), path_(std::move(path)) {}

  [[nodiscard]] std::uint64_t size() const override { return bytes_.size(); }
  [[nodiscard]] const std::string& path() const override { return path_; }
  void read(std::uint64_t offset, std::span<std::byte> bytes) const override {
    if (offset > bytes_.size() || bytes.size() > bytes_.size() - offset) {
      throw Error(ErrorCode::damaged, "read", path_, "the file ends before");
    }
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), bytes.size(), bytes.begin());
  }

 private:
  std::vector<std::byte> bytes_;
  std::string path_;
};

}  // namespace ckptring::test
