// The contestants of PyTorch's world, each in a Python process of its own (peers/saver.py).
#pragma once

#include "save/checkpointers.h"
#include "save/run_figures.h"

#include <nlohmann/json.hpp>

#include <span>
#include <string>

namespace bench {

/// One of the ways that peers/saver.py knows.
struct SaverWay {
  const char* id;
  const char* label;
};

std::span<const SaverWay> saver_ways();

class Saver : public SaveContestant {
 public:
  /// `python`: an interpreter with torch and safetensors. `description`: of the state, see
  /// `describe`; outlives this.
  Saver(const Setting& setting, const SaverWay& way, std::string python,
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
