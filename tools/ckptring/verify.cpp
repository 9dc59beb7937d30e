#include "verify.h"

#include "base/checksum.h"
#include "output.h"
#include "plan/pt_archive.h"
#include "progress_bar.h"
#include "store/file_source.h"
#include "words.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>

namespace ckptring::command {
namespace {

/// Small enough that the checksum is computed from the cache, large enough for the disk.
constexpr std::uint64_t kReadBytes = std::uint64_t{1} << 20;

class Verification {
 public:
  Verification(const plan::ByteSource& source, ProgressBar& progress)
      : source_(source), progress_(progress), buffer_(kReadBytes) {}

  /// Whether the file is whole.
  bool run() {
    try {
      const plan::PtArchive archive = plan::PtArchive::open(source_);
      archive.require_checksums("verify", ", so there is nothing to compare with");
      for (const plan::Record& record : archive.records()) check(record);
      // The structure, too: keys, shapes, that each tensor lies in its storage.
      if (damaged_ == 0) (void)archive.read_value(source_);
      if (damaged_ == 0) {
        progress_.clear();
        print(fmt::format("{}: whole, {}, {}\n", printable(source_.path()),
                          count(archive.records().size(), "record"), human_bytes(source_.size())));
      }
    } catch (const Error& error) {
      if (error.code() != ErrorCode::damaged) throw;
      report(error.what());
    }
    return damaged_ == 0;
  }

 private:
  void check(const plan::Record& record) {
    std::uint32_t crc = 0;
    for (std::uint64_t at = 0; at < record.size; at += kReadBytes) {
      const auto bytes = std::span(buffer_).first(std::min(kReadBytes, record.size - at));
      source_.read(record.data_offset + at, bytes);
      crc = base::crc32(bytes, crc);
      progress_.advance(bytes.size());
    }
    if (crc != record.crc32) {
      report(fmt::format("verify {}: record {}: its checksum is {:08x}, the file says {:08x}",
                         source_.path(), record.name, crc, record.crc32));
    }
  }

  void report(std::string_view what) {
    progress_.clear();
    fmt::print(stderr, "ckptring: {}\n", printable(what));
    ++damaged_;
  }

  const plan::ByteSource& source_;
  ProgressBar& progress_;
  std::vector<std::byte> buffer_;
  std::uint64_t damaged_ = 0;
};

}  // namespace

bool verify(const std::vector<std::string>& files) {
  std::vector<std::unique_ptr<plan::ByteSource>> sources;
  std::uint64_t total = 0;
  for (const std::string& file : files) {
    sources.push_back(store::open_file_source(file));
    total += sources.back()->size();
  }
  ProgressBar progress(total);
  bool whole = true;
  for (const auto& source : sources) whole = Verification(*source, progress).run() && whole;
  return whole;
}

}  // namespace ckptring::command
