// The contestants of PyTorch's world, each in a Python process of its own (peers/saver.py).
#pragma once

#include "save/checkpointers.h"
#include "save/run_figures.h"
#include "support/peer_ways.h"

#include <nlohmann/json.hpp>

#include <string>

namespace bench {

class Saver : public SaveContestant {
 public:
  /// `python`: an interpreter with torch and safetensors. `description`: of the state, see
  /// `describe`; outlives this.
  Saver(const Setting& setting, const PeerWay& way, std::string python,
        const nlohmann::json& description);
  /// Gives up the state of this process first: two of them, and a peer's copies, are too much.
  RunFigures run(int round) override;

 private:
  const Setting& setting_;
  std::string way_;
  std::string python_;
  const nlohmann::json& description_;
};

}  // namespace bench
