// Reads many records at once and checks them on the way.
//
//   records    |########|..|#######################|..|####|       in the file
//   chunks     |-----0------|------1-----|------2--------|         cut at whole MiB of the file
//
// Several threads take one chunk after the other. What the page cache holds is read straight into
// its target; what it does not hold comes from the disk, past the cache, through a window. Either
// way the checksum finds the bytes in the processor's cache. A record's checksum is joined from
// those of its pieces by whoever ends the last of them.
#pragma once

#include "os/huge_memory.h"
#include "plan/pt_archive.h"
#include "store/direct_reads.h"
#include "store/file_source.h"
#include "store/read_target.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>

namespace ckptring::store {

/// Bytes [begin, end) of a record, at least one, and where they go.
struct ReadPart {
  const plan::Record* record;
  std::uint64_t begin;
  std::uint64_t end;
  ReadTarget* target;    ///< null: they are only checked
  bool touched = false;  ///< set by `run`: a byte may have got to the target
};

struct ReadFailure {
  std::size_t part;          ///< that it happened at
  std::exception_ptr error;  ///< Error damaged or io, or what a target threw
};

/// Not thread-safe.
class RecordReads {
 public:
  /// `source` outlives this. `threads`, at least 1, check and copy; more of them wait for the disk.
  /// Takes 8 MiB, or as many as there are threads.
  /// @throws Error out_of_memory
  RecordReads(const FileSource& source, unsigned threads);

  /// Whatever a target takes lies in here.
  [[nodiscard]] std::span<std::byte> windows() const noexcept { return windows_.bytes(); }

  /// Reads all parts, which come in the order of the file and do not overlap. With `check` the
  /// parts of each record make up the whole of it, and its CRC-32 is compared.
  /// @return the first failure, by place in the file, among those that were met before all threads
  ///         had stopped; nothing if all is well
  [[nodiscard]] std::optional<ReadFailure> run(std::span<ReadPart> parts, bool check) const;

 private:
  const FileSource& source_;
  DirectReads direct_;
  unsigned threads_;
  os::HugeMemory windows_;  ///< one of a chunk's size for each thread
};

}  // namespace ckptring::store
