#include "store/record_reads.h"

#include "base/align.h"
#include "base/checksum.h"
#include "os/thread_team.h"

#include <ckptring/error.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <semaphore>
#include <utility>
#include <vector>

namespace ckptring::store {
namespace {

/// Fits into a core's second cache, and is enough for a disk to be quick.
constexpr std::uint64_t kChunk = 1ull << 20;
/// Requests that keep a disk busy.
constexpr unsigned kInFlight = 8;
/// What lies between two records and is read with them where that comes from the disk: headers and
/// padding.
constexpr std::uint64_t kGap = 8ull << 10;

/// The bytes of one part in one chunk.
struct Piece {
  std::size_t part;
  std::size_t record;   ///< index into the checked records
  std::uint64_t begin;  ///< byte of the record
  std::uint64_t size;
  std::uint32_t crc = 0;
  bool touched = false;
};

/// Pieces that are read together.
struct Chunk {
  std::size_t first_piece;
  std::size_t end_piece;
  std::uint64_t begin;  ///< bytes of the file
  std::uint64_t end;
};

struct CheckedRecord {
  std::size_t first_piece;
  std::size_t end_piece;
};

/// Lets somebody else compute while this thread waits for the disk.
class Waiting {
 public:
  explicit Waiting(std::counting_semaphore<>& computing) : computing_(computing) {
    computing_.release();
  }
  ~Waiting() { computing_.acquire(); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  std::counting_semaphore<>& computing_;
};

/// One call of RecordReads::run.
class Run {
 public:
  Run(const FileSource& source, const DirectReads& direct, std::span<ReadPart> parts, bool check)
      : source_(source), direct_(direct), parts_(parts), check_(check) {
    for (std::size_t part = 0; part < parts.size(); ++part) cut(part);
    pieces_left_ = std::vector<std::atomic<std::size_t>>(records_.size());
    for (std::size_t i = 0; i < records_.size(); ++i) {
      pieces_left_[i].store(records_[i].end_piece - records_[i].first_piece,
                            std::memory_order_relaxed);  // no other thread is there yet
    }
  }

  std::optional<ReadFailure> run(unsigned threads, std::span<std::byte> windows) {
    const auto count =
        static_cast<unsigned>(std::min<std::size_t>(windows.size() / kChunk, chunks_.size()));
    std::counting_semaphore<> computing(threads);
    std::atomic<std::size_t> next_window{0};
    const auto work = [&] {
      const std::size_t window = next_window.fetch_add(1, std::memory_order_relaxed);
      computing.acquire();
      take_chunks(windows.subspan(window * kChunk, kChunk), computing);
      computing.release();
    };
    if (const std::unique_ptr<os::ThreadTeam> team = make_team(count)) {
      team->run(work);
    } else {
      work();
    }
    for (const Piece& piece : pieces_) {
      if (piece.touched) parts_[piece.part].touched = true;
    }
    return std::move(failure_);
  }

 private:
  static std::unique_ptr<os::ThreadTeam> make_team(unsigned count) {
    if (count < 2) return nullptr;
    try {
      return std::make_unique<os::ThreadTeam>(count, "ckptring-load",
                                              os::OwnThread::Priority::foreground);
    } catch (const Error&) {
      return nullptr;  // no more threads are allowed: then without
    }
  }

  [[nodiscard]] std::uint64_t file_offset(const Piece& piece) const noexcept {
    return parts_[piece.part].record->data_offset + piece.begin;
  }

  void cut(std::size_t part_index) {
    const ReadPart& part = parts_[part_index];
    if (part_index == 0 || parts_[part_index - 1].record != part.record) {
      records_.push_back({pieces_.size(), pieces_.size()});
    }
    for (std::uint64_t at = part.begin; at < part.end;) {
      const std::uint64_t offset = part.record->data_offset + at;
      const std::uint64_t size = std::min(part.end - at, kChunk - offset % kChunk);
      if (chunks_.empty() || chunks_.back().begin / kChunk != offset / kChunk ||
          offset - chunks_.back().end > kGap) {
        chunks_.push_back({pieces_.size(), pieces_.size(), offset, offset});
      }
      pieces_.push_back({part_index, records_.size() - 1, at, size});
      chunks_.back().end_piece = records_.back().end_piece = pieces_.size();
      chunks_.back().end = offset + size;
      at += size;
    }
  }

  void take_chunks(std::span<std::byte> window, std::counting_semaphore<>& computing) {
    std::size_t next = 0;
    // Counts out the work; what is read is ordered by the end of the threads.
    while (!stop_.load(std::memory_order_relaxed) &&
           (next = next_chunk_.fetch_add(1, std::memory_order_relaxed)) < chunks_.size()) {
      read(chunks_[next], window, computing);
    }
  }

  void read(const Chunk& chunk, std::span<std::byte> window,
            std::counting_semaphore<>& computing) noexcept {
    std::size_t at = chunk.first_piece;
    try {
      const std::uint64_t begin = chunk.begin / DirectReads::kUnit * DirectReads::kUnit;
      std::size_t in_window = 0;
      if (direct_.cold(chunk.begin, chunk.end - chunk.begin)) {
        const Waiting waiting(computing);
        in_window = direct_.read(
            begin, window.first(base::align_up(chunk.end, DirectReads::kUnit) - begin));
      }
      for (; at < chunk.end_piece; ++at) {
        Piece& piece = pieces_[at];
        const std::uint64_t offset = file_offset(piece) - begin;
        if (offset + piece.size <= in_window) {
          take(piece, window.subspan(offset, piece.size));
        } else {
          read(piece, window);
        }
      }
    } catch (...) {
      fail(pieces_[at].part, std::current_exception());
    }
  }

  /// From the page cache.
  void read(Piece& piece, std::span<std::byte> window) {
    const ReadPart& part = parts_[piece.part];
    std::byte* const memory =
        part.target == nullptr ? nullptr : part.target->memory(piece.begin - part.begin);
    if (memory == nullptr) {
      source_.read(file_offset(piece), window.first(piece.size));
      take(piece, window.first(piece.size));
      return;
    }
    const std::span<std::byte> bytes(memory, piece.size);
    piece.touched = true;
    source_.read(file_offset(piece), bytes);
    checksum(piece, bytes);
  }

  /// From the window. A record that is there as a whole is checked before anything is touched.
  void take(Piece& piece, std::span<const std::byte> bytes) {
    const ReadPart& part = parts_[piece.part];
    checksum(piece, bytes);
    if (part.target == nullptr) return;
    piece.touched = true;
    part.target->take(piece.begin - part.begin, bytes);
  }

  void checksum(Piece& piece, std::span<const std::byte> bytes) {
    if (!check_) return;
    piece.crc = base::crc32(bytes);
    // The last one to subtract sees what all others computed before they did.
    if (pieces_left_[piece.record].fetch_sub(1, std::memory_order_acq_rel) == 1) {
      check(records_[piece.record]);
    }
  }

  void check(const CheckedRecord& checked) const {
    std::uint32_t crc = 0;
    for (std::size_t i = checked.first_piece; i < checked.end_piece; ++i) {
      crc = base::crc32_combine(crc, pieces_[i].crc, pieces_[i].size);
    }
    parts_[pieces_[checked.first_piece].part].record->check(crc);
  }

  void fail(std::size_t part, std::exception_ptr error) noexcept {
    stop_.store(true, std::memory_order_relaxed);  // what is under way may go on
    const std::scoped_lock lock(failing_);
    if (!failure_ || part < failure_->part) failure_ = {part, std::move(error)};
  }

  const FileSource& source_;
  const DirectReads& direct_;
  const std::span<ReadPart> parts_;
  const bool check_;
  std::vector<Piece> pieces_;
  std::vector<Chunk> chunks_;
  std::vector<CheckedRecord> records_;
  std::vector<std::atomic<std::size_t>> pieces_left_;  ///< by record
  std::atomic<std::size_t> next_chunk_{0};
  std::atomic<bool> stop_{false};
  std::mutex failing_;
  std::optional<ReadFailure> failure_;  ///< guarded by failing_
};

}  // namespace

RecordReads::RecordReads(const FileSource& source, unsigned threads)
    : source_(source),
      direct_(source),
      threads_(threads),
      windows_(std::max(threads, kInFlight) * kChunk) {}

std::optional<ReadFailure> RecordReads::run(std::span<ReadPart> parts, bool check) const {
  if (parts.empty()) return std::nullopt;
  return Run(source_, direct_, parts, check).run(threads_, windows_.bytes());
}

}  // namespace ckptring::store
