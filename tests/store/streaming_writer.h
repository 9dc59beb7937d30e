// A custom writer as a user would write one: a plain file, hidden until its commit.
#pragma once

#include "store/on_disk.h"

#include <ckptring/writer.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ckptring::store::test {

class StreamingWriter : public CheckpointWriter {
 public:
  void begin(const CheckpointDescription& checkpoint) override {
    checkpoint_ = checkpoint;
    made_.clear();
    for (std::filesystem::path path = checkpoint.directory; !std::filesystem::exists(path);
         path = path.parent_path()) {
      made_.push_back(path);
    }
    std::filesystem::create_directories(checkpoint.directory);
    hidden_ = checkpoint.directory + "/.streamed";
    out_.open(hidden_, std::ios::binary | std::ios::trunc);
    if (!out_) throw std::runtime_error("cannot open " + hidden_);
  }
  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (static_cast<std::uint64_t>(out_.tellp()) != offset) {
      throw std::runtime_error("a gap in the stream");
    }
    out_.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    if (!out_) throw std::runtime_error("cannot write " + hidden_);
  }
  void commit() override {
    out_.close();
    std::filesystem::rename(hidden_, checkpoint_.final_path);
  }
  void abort() noexcept override {
    std::error_code ignored;
    out_.close();
    std::filesystem::remove(hidden_, ignored);
    for (const std::filesystem::path& path : made_) std::filesystem::remove(path, ignored);
  }

 private:
  CheckpointDescription checkpoint_;
  std::string hidden_;
  std::ofstream out_;
  std::vector<std::filesystem::path> made_;  ///< innermost first
};

}  // namespace ckptring::store::test
