#include "save/sync_save.h"

#include "base/align.h"
#include "os/clock.h"
#include "os/poll.h"
#include "process/plan_tables.h"
#include "stage/fill_block.h"
#include "store/block_drain.h"
#include "store/file_sink.h"

#include <ckptring/error.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <utility>
#include <vector>

namespace ckptring::save {
namespace {

constexpr std::uint64_t kBlockBytes = 4ull << 20;
constexpr double kRetrySecs = 0.001;

/// A few blocks of private memory in place of the ring.
class PrivateBlocks {
 public:
  explicit PrivateBlocks(std::size_t count) : bytes_(count * kBlockBytes) {
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) {
      throw Error::from_errno(
          errno, "allocate " + std::to_string(bytes_ >> 20) + " MiB of blocks for a save", "");
    }
    (void)::madvise(memory_, bytes_, MADV_HUGEPAGE);  // refused: only slower
    for (std::size_t i = 0; i < count; ++i) free_.push_back(count - 1 - i);
  }
  ~PrivateBlocks() { (void)::munmap(memory_, bytes_); }
  PrivateBlocks(const PrivateBlocks&) = delete;
  PrivateBlocks& operator=(const PrivateBlocks&) = delete;

  [[nodiscard]] bool has_free() const noexcept { return !free_.empty(); }
  std::size_t take() noexcept {
    const std::size_t index = free_.back();
    free_.pop_back();
    return index;
  }
  void give_back(std::size_t index) { free_.push_back(index); }
  [[nodiscard]] std::span<std::byte> at(std::size_t index) const noexcept {
    return {static_cast<std::byte*>(memory_) + index * kBlockBytes, kBlockBytes};
  }

 private:
  std::size_t bytes_;
  void* memory_ = nullptr;
  std::vector<std::size_t> free_;
};

/// The tables that the ring's plan area holds on the other path.
class PrivateTables {
 public:
  explicit PrivateTables(const plan::FilePlan& plan) {
    process::describe_tables(plan, kBlockBytes, description_);
    memory_.resize(base::ceil_div(description_.plan_bytes, sizeof(std::uint64_t)));
    const auto bytes = std::as_writable_bytes(std::span(memory_));
    process::fill_tables(plan, kBlockBytes, description_, bytes);
    tables_ = process::tables_in(bytes, description_);
  }
  [[nodiscard]] const store::DrainTables& tables() const noexcept { return tables_; }

 private:
  ring::Description description_{};
  std::vector<std::uint64_t> memory_;
  store::DrainTables tables_;
};

/// Writes submitted together end together, so a queue that is refilled block by block runs dry
/// while it is refilled. Hence blocks are filled ahead while the queue is full.
class InlineDrain {
 public:
  InlineDrain(const SaveJob& job, store::SaveSink& sink, PrivateBlocks& blocks)
      : job_(job),
        sink_(sink),
        blocks_(blocks),
        total_(job.plan.total_bytes()),
        tables_(job.plan),
        drain_(tables_.tables(), kBlockBytes, total_) {}

  /// Returns when every block's write has ended. @throws Error
  void run() {
    for (;;) {
      submit_filled();
      if (reap()) continue;
      if (filled_to_ < total_ && blocks_.has_free()) {
        fill_next();
      } else if (in_flight_ > 0) {
        wait_for_completion();
      } else {
        return;
      }
    }
  }

 private:
  void fill_next() {
    const std::size_t index = blocks_.take();
    const std::uint64_t size = std::min(kBlockBytes, total_ - filled_to_);
    const auto block = blocks_.at(index).first(static_cast<std::size_t>(size));
    stage::fill_block(job_.plan, job_.sources, filled_to_, block);
    drain_.finalize(filled_to_, block);
    filled_.push_back(
        {index, filled_to_, block.data(), size, base::align_up(size, ring::kBlockAlignment)});
    filled_to_ += size;
  }
  void submit_filled() {
    for (; !filled_.empty() && sink_.room() > 0; ++in_flight_) {
      sink_.submit(filled_.front());
      filled_.pop_front();
    }
  }
  bool reap() {
    done_.clear();
    sink_.reap(done_);
    for (const std::uint64_t token : done_) blocks_.give_back(static_cast<std::size_t>(token));
    in_flight_ -= done_.size();
    return !done_.empty();
  }
  /// A write that hangs in the kernel holds this thread just as a plain write would.
  void wait_for_completion() {
    std::array<os::Waitable, 1> completion{os::Waitable{sink_.completion_fd()}};
    (void)os::wait_any(completion, os::Deadline::never());
  }

  const SaveJob& job_;
  store::SaveSink& sink_;
  PrivateBlocks& blocks_;
  std::uint64_t total_;
  PrivateTables tables_;
  store::BlockDrain drain_;
  std::deque<store::Extent> filled_;  ///< final, in file order, not submitted yet
  std::uint64_t filled_to_ = 0;
  std::size_t in_flight_ = 0;
  std::vector<std::uint64_t> done_;
};

}  // namespace

SyncSave::SyncSave(const CheckpointWriterConfig& config, RankInfo rank, WriterSetup writer)
    : config_(config), rank_(rank), writer_(std::move(writer)) {}

SaveReport SyncSave::run(SaveJob job) {
  ++number_;
  SaveReport report;
  report.planned_seconds = job.planned_seconds;
  report.bytes = job.plan.total_bytes();
  store::FileSystem& files = store::system_files();
  store::SaveTarget target = store::make_target(files, job.path, rank_, job.plan.total_bytes());
  target.save = number_;
  report.path = target.directory + "/" + target.final_name;
  const std::unique_ptr<store::SaveSink> sink =
      writer_.writer ? store::make_stream_sink(*writer_.writer, target, writer_.hook.get())
                     : store::make_file_sink(files, config_, target, writer_.hook.get());
  PrivateBlocks blocks(2 * config_.queue_depth);  // outlives every write in flight: see abort
  const std::uint64_t began = os::monotonic_ns();
  try {
    // Ends by itself: begin throws busy_elsewhere after busy_timeout_secs.
    while (!sink->begin(store::Beginning::fresh)) {
      (void)os::wait_any({}, os::Deadline::after(kRetrySecs));
    }
    InlineDrain(job, *sink, blocks).run();
    if (job.check_unchanged) job.check_unchanged();
    job.keep_alive.reset();
    report.drained_seconds = os::seconds_since(began);
    report.staged_seconds = report.drained_seconds;
    store::CommitTimes times = sink->commit([](store::CommitPhase, const std::string&) {});
    report.fsync_seconds = times.fsync_seconds;
    report.commit_seconds = times.commit_seconds;
    report.warnings = std::move(times.warnings);
  } catch (...) {
    sink->abort();
    throw;
  }
  return report;
}

}  // namespace ckptring::save
