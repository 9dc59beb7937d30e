// Who is measured, and what comes out of it.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/// One save. Seconds; empty where a word means nothing.
struct SaveFigures {
  std::optional<double> returned;     ///< from the call until it returned
  std::optional<double> staged;       ///< from the call until the state might change again
  std::optional<double> written;      ///< from the call until everything was written, not synced
  std::optional<double> durable;      ///< from the call until it was synced and visible as well
  std::optional<double> trainer_cpu;  ///< processor time of the process whose state it is
  std::optional<double> helper_cpu;   ///< processor time of its other processes
  // Of SaveReport.
  std::optional<double> planned, copied, stalled, drained, fsync, commit;
  std::optional<double> walked;  ///< reading the tensors' metadata, nothing else
};

/// Highest seen during a save, in bytes.
struct MemoryFigures {
  double beyond_state;  ///< PSS of all processes, beyond what the trainer had before
  double page_tables;   ///< the same of page tables, which PSS does not count
  std::optional<double> beyond_ring;
  std::optional<double> helper_pss;  ///< without the ring
};

/// What one contestant did in one round.
struct RunFigures {
  std::optional<double> prepared;  ///< seconds before the first save could be begun
  std::optional<SaveFigures> first;
  SaveFigures steady;  ///< medians of the following ones
  std::optional<MemoryFigures> memory;
  std::vector<std::string> notes;  ///< what to beware of
};

/// How much to do in one round.
struct Effort {
  int saves;            ///< after the first one
  bool look_at_memory;  ///< during one more save: looking holds up everybody
};

/// A contestant that is not ours could not go on. The others do.
class ContestantFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Leaves no file, process or memory behind from one run to the next.
class Contestant {
 public:
  Contestant(std::string id, std::string label) : id_(std::move(id)), label_(std::move(label)) {}
  virtual ~Contestant() = default;
  Contestant(const Contestant&) = delete;
  Contestant& operator=(const Contestant&) = delete;

  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  [[nodiscard]] const std::string& label() const noexcept { return label_; }

  /// Begins anew: a fresh process or checkpointer, a first save, and those that follow.
  /// @throws ContestantFailed
  virtual RunFigures run(const Effort& effort) = 0;

 private:
  std::string id_;
  std::string label_;
};

}  // namespace bench
