// The contestants that load: this library and PyTorch's world, each in a process of its own.
#pragma once

#include "load/run_figures.h"
#include "support/peer_ways.h"

#include <nlohmann/json.hpp>

#include <span>
#include <string>
#include <vector>

namespace bench {

/// The ways to load of peers/loader.py.
std::span<const PeerWay> peer_loaders();

/// How a loader's program is started, and what it loads.
struct LoaderSpec {
  std::string id;
  std::string label;
  std::vector<std::string> arguments;  ///< it obeys what load/loader.cpp describes
  std::string structure;               ///< a file of this library, for the state to load into
  std::string path;                    ///< what it loads, file or directory
};

/// Has a loader make, from the file `spec.structure`, what it will load.
/// @throws ContestantFailed
void make_what_is_loaded(const LoaderSpec& spec);

class Loader : public LoadContestant {
 public:
  explicit Loader(LoaderSpec spec);
  LoadRun run(int round) override;

 private:
  LoaderSpec spec_;
};

}  // namespace bench
