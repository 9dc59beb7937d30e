// What this library is compared with: the ways of PyTorch's world, by the programs in peers/.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace bench {

struct PeerWay {
  const char* id;  ///< as the program calls it
  const char* label;
};

/// The ways to save of peers/ways.py.
std::span<const PeerWay> peer_ways();

/// Those of `ways` that the command line names; "all" and "none" are names too.
/// @throws std::runtime_error for a name that nobody has
std::vector<PeerWay> chosen_peers(std::span<const PeerWay> ways,
                                  const std::vector<std::string>& names);

}  // namespace bench
