// What is fuzzed, in every build and without libFuzzer: the seeds, and a fixed number of changes
// of them, the same ones each time. The address sanitizer's build makes the most of it.
#pragma once

#include "fuzz/seeds.h"
#include "support/fault_row.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace ckptring::fuzz {

using Bytes = std::vector<std::byte>;

/// One to eight small changes, some of them with bytes of another seed.
inline Bytes changed(const Bytes& seed, const Bytes& other, std::mt19937_64& random) {
  const auto below = [&](std::size_t count) {
    return count == 0 ? std::size_t{0} : static_cast<std::size_t>(random() % count);
  };
  const auto at = [](Bytes& bytes, std::size_t place) {
    return bytes.begin() + static_cast<std::ptrdiff_t>(place);
  };
  Bytes bytes = seed;
  for (std::size_t changes = 1 + below(8); changes > 0 && !bytes.empty(); --changes) {
    const std::size_t place = below(bytes.size());
    const std::size_t length = std::min(bytes.size() - place, 1 + below(16));
    switch (below(7)) {
      case 0:
        bytes[place] ^= static_cast<std::byte>(1U << below(8));
        break;
      case 1:
        bytes[place] = static_cast<std::byte>(random());
        break;
      case 2:  // a number that counting goes wrong with
        std::fill_n(at(bytes, place), length, below(2) == 0 ? std::byte{0} : std::byte{0xff});
        break;
      case 3:
        bytes.erase(at(bytes, place), at(bytes, place + length));
        break;
      case 4: {  // twice
        const Bytes piece(at(bytes, place), at(bytes, place + length));
        bytes.insert(at(bytes, below(bytes.size() + 1)), piece.begin(), piece.end());
        break;
      }
      case 5:
        bytes.resize(place);
        break;
      default:
        if (!other.empty()) {
          const std::size_t from = below(other.size());
          const std::size_t size = std::min(other.size() - from, 1 + below(32));
          bytes.insert(at(bytes, place), other.begin() + static_cast<std::ptrdiff_t>(from),
                       other.begin() + static_cast<std::ptrdiff_t>(from + size));
        }
    }
  }
  return bytes;
}

inline void replay(const Seeds& seeds, void (*target)(std::span<const std::byte>),
                   std::size_t rounds, const char* row) {
  for (const Bytes& seed : seeds) target(seed);
  std::mt19937_64 random(7);
  for (std::size_t i = 0; i < rounds; ++i) {
    target(changed(seeds[random() % seeds.size()], seeds[random() % seeds.size()], random));
  }
  // A promise that is broken ends this program.
  test::FaultRow{std::string("damaged: fuzzed ") + row, seeds.size() + rounds}.report();
}

}  // namespace ckptring::fuzz
