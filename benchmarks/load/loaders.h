// The contestants that load: this library and PyTorch's world, each in a process of its own.
#pragma once

#include "load/run_figures.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <vector>

namespace bench {

/// One that peers/loader.py knows.
struct PeerLoader {
  const char* id;
  const char* label;
};
/// Those that the command line names; "all" and "none" are names too.
/// @throws std::runtime_error for a name that nobody has
std::vector<PeerLoader> chosen_loaders(const std::vector<std::string>& names);

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
