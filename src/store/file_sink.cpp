#include "store/file_sink.h"

#include "base/align.h"
#include "base/log.h"
#include "store/commit.h"
#include "store/directories.h"
#include "store/leftovers.h"
#include "store/temporary_file.h"
#include "store/write_queue.h"

#include <ckptring/error.h>

#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>

namespace ckptring::store {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr unsigned kMaxQueueDepth = 64;
constexpr unsigned kMaxThreads = 64;
/// Whoever only looks at a temporary holds its lock for some microseconds; this long, a save does.
constexpr double kLookSecs = 0.1;

class FileSink final : public SaveSink {
 public:
  FileSink(FileSystem& files, const CheckpointWriterConfig& config, SaveTarget target,
           WriterHook* hook)
      : files_(files),
        config_(config),
        target_(std::move(target)),
        hook_(hook),
        log_{log_of(target_)},
        directories_(files, target_),
        temporary_(files, target_, directories_) {}

  bool claim(Beginning beginning) override {
    if (state_ == State::claimed) return true;
    if (state_ != State::made && state_ != State::claiming) misused("begun twice");
    state_ = State::claiming;
    beginning_ = beginning;
    if (beginning != Beginning::renaming) check_file_size_limit();
    // Beside another save of this process, whoever comes last removes what both have made use of.
    if (beginning != Beginning::fresh || !target_.earlier_temporary.empty()) {
      directories_.claim_missing();
    }
    switch (temporary_.acquire(beginning)) {
      case TemporaryFile::Acquired::predecessor_writing:
        return false;
      case TemporaryFile::Acquired::name_in_use:
        check_patience(waited_for_name_, gives_way_ ? kLookSecs : config_.busy_timeout_secs,
                       report_busy);
        return false;
      case TemporaryFile::Acquired::directory_in_use:
        check_patience(waited_for_directory_, config_.busy_timeout_secs, report_locked);
        return false;
      case TemporaryFile::Acquired::yes:
        break;
    }
    state_ = State::claimed;
    return true;
  }

  void give_way() noexcept override { gives_way_ = true; }

  bool begin(Beginning beginning) override {
    if (!claim(beginning)) return false;
    if (beginning != Beginning::renaming) open_queue();
    state_ = State::writing;
    return true;
  }

  [[nodiscard]] std::size_t room() const override {
    return state_ == State::writing && queue_ ? queue_->room() : 0;
  }

  void submit(const Extent& extent) override {
    if (room() == 0) misused("submitted without room");
    if (extent.file_offset % kPage != 0 || extent.file_offset > target_.total_bytes ||
        extent.size > target_.total_bytes - extent.file_offset || extent.size == 0 ||
        extent.capacity != base::align_up(extent.size, kPage) ||
        reinterpret_cast<std::uintptr_t>(extent.data) % kPage != 0) {
      misused("given an extent that does not fit the file");
    }
    // Blocks arrive in file order. One that is not the first of the file relies on what a
    // predecessor wrote.
    if (submitted_bytes_ == 0 && extent.file_offset != 0 && temporary_.created()) report_lost();
    std::memset(extent.data + extent.size, 0, extent.capacity - extent.size);
    submitted_bytes_ += extent.size;
    ++in_flight_;
    queue_->submit(extent.token, extent.file_offset, extent.data,
                   base::align_up(extent.size, queue_->unit()));
  }

  [[nodiscard]] int completion_fd() const override { return queue_ ? queue_->completion_fd() : -1; }

  void reap(std::vector<std::uint64_t>& done) override {
    if (!queue_) return;
    ended_.clear();
    queue_->reap(ended_);
    in_flight_ -= ended_.size();
    int error = 0;
    for (const WriteQueue::Done& write : ended_) {
      if (write.error == 0) {
        done.push_back(write.token);
      } else if (error == 0) {
        error = write.error;
      }
    }
    if (error == 0) return;
    state_ = State::failed;
    throw Error::from_errno(error, "write", temporary_.path());
  }

  CommitTimes commit(const PhaseRecorder& record) override {
    if (state_ != State::writing)
      misused("committed without having been begun, or after a failure");
    if (in_flight_ != 0) misused("committed with writes in flight");
    // Until it has succeeded, nothing but abort may follow.
    state_ = State::failed;
    const Commit commit(files_, target_, directories_, hook_);
    CommitTimes times;
    if (beginning_ == Beginning::renaming) {
      times = commit.finish(record);
    } else {
      if (temporary_.created() && submitted_bytes_ != target_.total_bytes) report_lost();
      times = commit.run(temporary_.fd(), record);
    }
    queue_.reset();
    temporary_.close();
    state_ = State::ended;
    return times;
  }

  void abort() noexcept override {
    if (state_ == State::ended) return;
    queue_.reset();  // waits for what is in flight
    if (state_ != State::made) {
      temporary_.remove();
      directories_.remove_made();
    }
    state_ = State::ended;
  }

 private:
  enum class State { made, claiming, claimed, writing, failed, ended };

  [[noreturn]] void misused(const char* how) const {
    throw Error(ErrorCode::internal, "write", temporary_.path(),
                std::string("the sink was ") + how);
  }

  [[noreturn]] void report_lost() {
    state_ = State::failed;
    temporary_.report_lost();
  }

  /// What is in the way now; the time since the last look was spent on what was so then. So each
  /// has its own time, and if they take turns the wait ends all the same.
  void check_patience(double& waited_secs, double patience_secs,
                      void (*report)(const SaveTarget&, double)) {
    const auto now = std::chrono::steady_clock::now();
    if (waits_for_ != nullptr) {
      *waits_for_ += std::chrono::duration<double>(now - looked_).count();
    }
    waits_for_ = &waited_secs;
    looked_ = now;
    if (waited_secs >= patience_secs) report(target_, patience_secs);
  }

  void check_file_size_limit() const {
    // Found out by writing it would be a signal, which kills.
    if (target_.total_bytes > file_size_limit()) {
      throw Error(ErrorCode::no_space, "write", temporary_.path(),
                  "the file would be larger than this process may write (RLIMIT_FSIZE, ulimit -f)",
                  EFBIG);
    }
  }

  [[nodiscard]] std::uint64_t file_size_limit() const {
    ::rlimit limit{};
    if (::getrlimit(RLIMIT_FSIZE, &limit) != 0) {
      throw Error::from_errno(errno, "read the file size limit for", temporary_.path());
    }
    return limit.rlim_cur == RLIM_INFINITY ? std::numeric_limits<std::uint64_t>::max()
                                           : limit.rlim_cur;
  }

  void open_queue() {
    const std::uint64_t padded = base::align_up(target_.total_bytes, kPage);
    std::string direct_refusal;
    if (padded > file_size_limit()) {
      direct_refusal = "RLIMIT_FSIZE leaves no room for the padding of the last block";
    }
    if (!temporary_.locked()) {
      direct_refusal = "the file system has no locks";
      static base::FirstTime first_time;
      if (first_time()) {
        log_.warn(
            "the file system of {} has no locks (flock): a quick restart after a crash is "
            "not guarded",
            target_.directory);
      }
    }
    temporary_.reserve(direct_refusal.empty() ? padded : target_.total_bytes);
    queue_ = open_write_queue(
        files_, {temporary_.fd(), temporary_.path(), config_, std::move(direct_refusal), log_});
  }

  FileSystem& files_;
  CheckpointWriterConfig config_;
  SaveTarget target_;
  WriterHook* hook_;
  base::LogContext log_;
  SaveDirectories directories_;
  TemporaryFile temporary_;
  std::unique_ptr<WriteQueue> queue_;  // after the file that it writes to
  std::vector<WriteQueue::Done> ended_;
  double waited_for_name_ = 0;       ///< seconds
  double waited_for_directory_ = 0;  ///< seconds
  double* waits_for_ = nullptr;      ///< one of these
  std::chrono::steady_clock::time_point looked_;
  bool gives_way_ = false;
  State state_ = State::made;
  Beginning beginning_ = Beginning::fresh;
  std::size_t in_flight_ = 0;
  std::uint64_t submitted_bytes_ = 0;
};

}  // namespace

std::unique_ptr<SaveSink> make_file_sink(FileSystem& files, const CheckpointWriterConfig& config,
                                         const SaveTarget& target, WriterHook* hook) {
  check_writer_config(config);
  return std::make_unique<FileSink>(files, config, target, hook);
}

void check_writer_config(const CheckpointWriterConfig& config) {
  const auto refuse = [](const char* cause) {
    throw Error(ErrorCode::invalid_argument, "configure the file writer", "", cause);
  };
  if (config.queue_depth < 1 || config.queue_depth > kMaxQueueDepth) {
    refuse("queue_depth must be 1 to 64");
  }
  if (config.threads < 1 || config.threads > kMaxThreads) refuse("threads must be 1 to 64");
  if (!(config.busy_timeout_secs >= 0) || !std::isfinite(config.busy_timeout_secs)) {
    refuse("busy_timeout_secs must be finite and not negative");
  }
}

}  // namespace ckptring::store
