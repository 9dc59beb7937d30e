// The text to learn, as numbers, and a position in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace demo {

/// The whole text as indices into its own alphabet (bytes in rising order).
struct Text {
  std::vector<std::int64_t> characters;
  std::int64_t alphabet = 0;
};

/// Reads `file`; an empty name stands for the licence texts that every Debian has.
/// @throws std::runtime_error if it cannot be read or has less than `least` characters
Text read_text(const std::string& file, std::size_t least);

/// Cuts the text into windows and goes through all of them in a scattered order, on and on. The
/// position is all there is to restore.
class Batches {
 public:
  /// @param text    must outlive this, with more than `length` characters
  /// @param windows taken at once
  Batches(const Text& text, std::int64_t windows, std::int64_t length);

  /// The characters of the next windows, then the ones that follow each of them: two row-major
  /// tables of windows x length.
  struct Batch {
    std::vector<std::int64_t> inputs;
    std::vector<std::int64_t> targets;
  };
  Batch next();

  /// Batches taken so far.
  [[nodiscard]] std::int64_t position() const { return position_; }
  void set_position(std::int64_t position) { position_ = position; }

 private:
  const Text& text_;
  std::int64_t windows_;
  std::int64_t length_;
  std::int64_t all_windows_;  ///< that the text has
  std::int64_t stride_;       ///< from one window to the next, modulo all; coprime to it
  std::int64_t position_ = 0;
};

}  // namespace demo
