#include "store/commit.h"
#include "store/file_sink.h"

#include <ckptring/error.h>

#include <chrono>

namespace ckptring::store {
namespace {

class StreamSink final : public SaveSink {
 public:
  StreamSink(CheckpointWriter& writer, const SaveTarget& target, WriterHook* hook)
      : writer_(writer), checkpoint_(describe(target)), hook_(hook) {}

  ~StreamSink() override { abort(); }
  StreamSink(const StreamSink&) = delete;
  StreamSink& operator=(const StreamSink&) = delete;

  bool begin(Beginning beginning) override {
    if (state_ != State::made) misused("begun twice");
    if (beginning == Beginning::renaming) {
      throw Error(ErrorCode::outcome_unknown, "resume", checkpoint_.final_path,
                  "the custom writer's process died while it committed: the checkpoint may be "
                  "visible or not");
    }
    if (beginning != Beginning::fresh) {
      throw Error(ErrorCode::process_failed, "resume", checkpoint_.final_path,
                  "a custom writer cannot resume after its process died");
    }
    state_ = State::failed;
    call("begin", [&] { writer_.begin(checkpoint_); });
    state_ = State::writing;
    return true;
  }

  [[nodiscard]] std::size_t room() const override { return state_ == State::writing ? 1 : 0; }

  void submit(const Extent& extent) override {
    if (room() == 0) misused("submitted without room");
    if (extent.file_offset != written_ || extent.size > checkpoint_.total_bytes - written_) {
      misused("given extents that are not in file order");
    }
    state_ = State::failed;
    call("write", [&] { writer_.write(written_, {extent.data, extent.size}); });
    state_ = State::writing;
    written_ += extent.size;
    done_.push_back(extent.token);
  }

  [[nodiscard]] int completion_fd() const override { return -1; }

  void reap(std::vector<std::uint64_t>& done) override {
    done.insert(done.end(), done_.begin(), done_.end());
    done_.clear();
  }

  CommitTimes commit(const PhaseRecorder& record) override {
    if (state_ != State::writing)
      misused("committed without having been begun, or after a failure");
    if (written_ != checkpoint_.total_bytes) misused("committed before the last byte");
    state_ = State::failed;
    CommitTimes times;
    record(CommitPhase::syncing, checkpoint_.final_path);
    const auto begin = std::chrono::steady_clock::now();
    run_pre_commit(hook_, checkpoint_);
    // From here on only the writer knows whether the checkpoint is visible.
    record(CommitPhase::renaming, checkpoint_.final_path);
    call("commit", [&] { writer_.commit(); });
    state_ = State::ended;
    run_post_commit(hook_, checkpoint_, times);
    times.commit_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return times;
  }

  void abort() noexcept override {
    if (state_ == State::writing || state_ == State::failed) writer_.abort();
    state_ = State::ended;
  }

 private:
  enum class State { made, writing, failed, ended };

  [[noreturn]] void misused(const char* how) const {
    throw Error(ErrorCode::internal, "write", checkpoint_.final_path,
                std::string("the sink was ") + how);
  }

  template <class Call>
  void call(const char* what, Call&& writer_call) {
    try {
      writer_call();
    } catch (...) {
      throw Error(ErrorCode::hook_failed, std::string("custom writer, ") + what,
                  checkpoint_.final_path, current_exception_text());
    }
  }

  CheckpointWriter& writer_;
  CheckpointDescription checkpoint_;
  WriterHook* hook_;
  State state_ = State::made;
  std::uint64_t written_ = 0;
  std::vector<std::uint64_t> done_;
};

}  // namespace

std::unique_ptr<SaveSink> make_stream_sink(CheckpointWriter& writer, const SaveTarget& target,
                                           WriterHook* hook) {
  return std::make_unique<StreamSink>(writer, target, hook);
}

}  // namespace ckptring::store
