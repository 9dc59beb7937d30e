// One trainer in a process of its own, from its start to its end.
#pragma once

#include "support/peer.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <vector>

namespace bench {

/// A program that does what peers/trainer.py describes.
struct TrainerProgram {
  std::string id;
  std::string label;
  std::vector<std::string> command;
  bool copies = false;  ///< whether it knows `copy`
};

/// What is trained.
struct TrainerModel {
  std::string name;
  nlohmann::json shape;  ///< as peers/trainer.py wants it
};

/// Steps that were taken one after the other. Seconds.
struct LoopFigures {
  std::vector<double> steps;
  double held = 0;     ///< how long a save before them kept the loop from going on
  double tail = 0;     ///< from the end of the last step until it was durable
  double trained = 0;  ///< all steps, and until another save could be begun
  double trainer_cpu = 0;
  double helper_cpu = 0;  ///< of the trainer's other processes
};

/// @throws PeerError from every call
class TrainerProcess {
 public:
  /// Starts it, makes the model and takes the first steps, which do not count.
  TrainerProcess(const TrainerProgram& program, const TrainerModel& model);

  /// Makes what can be made before the first save, and saves once. Comes before saves.
  void prepare(const std::string& directory);

  /// Takes so many steps, beginning a save into the directory `save`, if there is one, before the
  /// first. Returns when everything is durable.
  LoopFigures train(int steps, const std::optional<std::string>& save);
  /// The same, for the highest PSS of all of its processes, in bytes. Looking holds up the loop.
  double highest_memory(int steps, const std::optional<std::string>& save);

  /// Seconds that a memcpy of the state takes. Only of programs that know how.
  double copy(unsigned threads);

  [[nodiscard]] double state_bytes() const noexcept { return state_bytes_; }
  [[nodiscard]] double parameters() const noexcept { return parameters_; }

 private:
  nlohmann::json ask(const nlohmann::json& command);

  Peer peer_;
  double state_bytes_ = 0;
  double parameters_ = 0;
};

}  // namespace bench
