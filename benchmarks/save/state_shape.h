// What is saved: states of several shapes, of which one at a time is in memory.
#pragma once

#include <ckptring/state_dict.h>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bench {

enum class Shape {
  gpt2,   ///< GPT-2 small with AdamW: 444 tensors, 1.49 GB
  small,  ///< 20,000 tensors of 16 KiB
  large,  ///< 4 tensors of 1 GiB
};

/// "gpt2", "small" or "large".
std::string name_of(Shape shape);

/// `scale`: share of the whole size. `small` then has fewer tensors, the others have smaller ones.
struct StateSpec {
  Shape shape = Shape::gpt2;
  double scale = 1;

  bool operator==(const StateSpec&) const = default;
};

/// 4 tensors with as many bytes as `small` has in 20,000.
StateSpec large_as_small(double scale);

/// All tensors are float32, filled with random numbers.
struct SavedState {
  ckptring::StateDict dict;
  std::vector<std::span<const std::byte>> payloads;  ///< each tensor's bytes, in walking order
  std::uint64_t bytes = 0;                           ///< of all payloads
};

/// Names, sizes and numbers of all entries, for another program to build the same: a list of
/// {"path": keys, "sizes": sizes} and {"path": keys, "value": number}.
nlohmann::json describe(const ckptring::StateDict& dict);

/// The state that is in memory, so that whoever comes next does not find it full.
class CurrentState {
 public:
  /// Builds it unless it is the one that is there. Valid until another is asked for or released.
  const SavedState& get(const StateSpec& spec);
  /// Gives its memory back to the system.
  void release();

 private:
  struct Held {
    StateSpec spec;
    SavedState state;
  };
  std::optional<Held> held_;
};

}  // namespace bench
