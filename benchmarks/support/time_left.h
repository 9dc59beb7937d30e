// How long it will still take.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace bench {

/// Of rounds in which everybody has one turn, by how long each one's turns took so far.
class TimeLeft {
 public:
  /// Everybody is a number below `everybody`.
  TimeLeft(std::size_t everybody, int rounds);

  void add_turn(std::size_t who, double seconds);
  /// Who has failed has no other turn.
  void leave_out(std::size_t who);

  /// Who had no turn yet is taken to need what the others need in the mean. Empty before anybody
  /// had one.
  [[nodiscard]] std::optional<double> seconds() const;

 private:
  struct Player {
    double seconds = 0;
    int taken = 0;
    int left = 0;
  };
  std::vector<Player> players_;
};

/// "40 s", "12 min" or "1.5 h".
std::string time_in_words(double seconds);

}  // namespace bench
