// The checkpoint process's work: takes saves from the ring one after the other and commits them.
#pragma once

#include "base/log.h"
#include "drain/final_name.h"
#include "os/clock.h"
#include "ring/consumer.h"
#include "store/file_system.h"
#include "store/save_sink.h"

#include <ckptring/config.h>
#include <ckptring/error.h>
#include <ckptring/writer.h>

#include <sys/types.h>

#include <cstdint>
#include <memory>

namespace ckptring::drain {

/// What tells that the trainer is gone. Borrowed descriptors.
struct TrainersEnd {
  int pidfd;  ///< readable once its process has ended
  /// The end of a pipe whose other end the trainer alone has, close-on-exec: in error once it has
  /// become another program, under the same process id. -1: nobody looks at that.
  int pipe = -1;
};

class DrainLoop {
 public:
  /// How the loop ended.
  enum class End {
    shutdown,      ///< asked to, and nothing was left to do
    trainer_gone,  ///< everything sealed is committed, the unsealed save undone
    orphaned,      ///< the trainer is gone and the disk did not move for orphan_timeout_secs
  };

  /// All arguments outlive the loop.
  /// @param own_umask  for saves that do not say which the trainer has
  DrainLoop(ring::SegmentView segment, ring::Bells bells, TrainersEnd trainer,
            store::FileSystem& files, WriterSetup& writer, mode_t own_umask);

  /// Reports as started under this incarnation, then works until one of the ends. Once orphaned,
  /// the destructor may wait for ever.
  /// @throws Error for failures that belong to no save
  End run(std::uint32_t incarnation);

 private:
  enum class Drained { sealed, given_up };
  struct Orphaned {};

  /// A save whose name is taken, or is yet to be, while the one before it is still written.
  struct Claimed {
    std::uint64_t save = 0;
    store::Beginning beginning = store::Beginning::fresh;
    std::unique_ptr<store::SaveSink> sink;
  };

  void drain_save(std::uint64_t save);
  void write_and_commit(std::uint64_t save, store::SaveSink& sink, store::Beginning beginning);
  void claim_after(std::uint64_t save);
  [[nodiscard]] Claimed first_look_at(std::uint64_t save, const store::SaveTarget& target);
  Drained drain_blocks(std::uint64_t save, store::SaveSink& sink);
  void open_sink(std::uint64_t save, store::SaveSink& sink, store::Beginning beginning);
  void undo(std::uint64_t save, store::SaveSink& sink);
  void note_failure(std::uint64_t save, const Error& error);
  [[nodiscard]] bool failure_noted(std::uint64_t save);
  void discard(std::uint64_t save);
  std::unique_ptr<store::SaveSink> make_sink(const store::SaveTarget& target);
  [[nodiscard]] store::SaveTarget target_of(std::uint64_t save) const;

  template <class Moved>
  void sleep(Moved&& moved, int completion_fd);
  void wait_for_write(int completion_fd);
  template <class UntilMoved>
  void wait(int completion_fd, UntilMoved&& until_moved);
  bool notice_trainers_end();
  void note_trainer_gone();
  [[nodiscard]] os::Deadline orphan_deadline() const;
  [[nodiscard]] bool will_not_be_sealed(std::uint64_t save);

  ring::SegmentView segment_;
  ring::Consumer consumer_;
  TrainersEnd trainer_;
  bool trainer_gone_ = false;
  store::FileSystem& files_;
  WriterSetup& writer_;
  CheckpointWriterConfig writer_config_;
  const mode_t own_umask_;  ///< the trainer's when this process was started
  FinalName final_name_;
  Claimed claimed_;
  /// Of the save that is being written. Outlives Orphaned: its destructor waits for writes, and
  /// those of a disk that hangs never end.
  std::unique_ptr<store::SaveSink> sink_;
  base::LogContext log_;
};

}  // namespace ckptring::drain
