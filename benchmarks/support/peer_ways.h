// What this library is compared with: the ways to save of peers/ways.py.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace bench {

struct PeerWay {
  const char* id;  ///< as peers/ways.py calls it
  const char* label;
};

std::span<const PeerWay> peer_ways();

/// Those that the command line names; "all" and "none" are names too.
/// @throws std::runtime_error for a name that nobody has
std::vector<PeerWay> chosen_peers(const std::vector<std::string>& names);

}  // namespace bench
