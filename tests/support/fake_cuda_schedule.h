// When the stand-in for CUDA does the work that was enqueued.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace ckptring::test {

/// Each of them is one that CUDA allows: work of one stream runs in order, work of several streams
/// in any order that their events leave open.
class Schedule {
 public:
  enum class Kind { eager, late, random };

  /// All work as soon as it may run, in the order in which it was enqueued.
  static Schedule eager() { return {Kind::eager, 0}; }
  /// Work runs only when somebody waits for it, directly or through events, and nothing else does.
  /// Copies of a batch run in reverse.
  static Schedule late() { return {Kind::late, 0}; }
  /// Streams take turns by chance, copies run in pieces with work of other streams between them,
  /// batches are shuffled, and some of the work waits until somebody needs it. What is drawn
  /// depends on the seed alone; what there is to choose from also on the threads of the host.
  static Schedule random(std::uint64_t seed) { return {Kind::random, seed}; }

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
  /// Fit for the name of a test.
  [[nodiscard]] std::string name() const {
    switch (kind_) {
      case Kind::eager:
        return "Eager";
      case Kind::late:
        return "Late";
      default:
        return "Random" + std::to_string(seed_);
    }
  }
  friend std::ostream& operator<<(std::ostream& out, const Schedule& schedule) {
    return out << schedule.name();
  }

 private:
  Schedule(Kind kind, std::uint64_t seed) : kind_(kind), seed_(seed) {}

  Kind kind_;
  std::uint64_t seed_;
};

/// Both extremes, and `random` ones between them.
inline std::vector<Schedule> all_schedules(std::uint64_t random = 8) {
  std::vector<Schedule> all = {Schedule::eager(), Schedule::late()};
  for (std::uint64_t seed = 1; seed <= random; ++seed) all.push_back(Schedule::random(seed));
  return all;
}

}  // namespace ckptring::test
