#include "support/peer_ways.h"

#include <array>
#include <cstddef>
#include <stdexcept>

namespace bench {
namespace {

constexpr std::array kWays{
    PeerWay{"torch_save", "torch.save"},
    PeerWay{"safetensors", "safetensors"},
    PeerWay{"dcp", "DCP save"},
    PeerWay{"dcp_thread", "DCP async_save, thread"},
    PeerWay{"dcp_process", "DCP async_save, process"},
    PeerWay{"dcp_shared", "DCP async_save, process, shared stager"},
    PeerWay{"experimental", "_experimental sync"},
    PeerWay{"experimental_async", "_experimental async"},
};

}  // namespace

std::span<const PeerWay> peer_ways() { return kWays; }

std::vector<PeerWay> chosen_peers(std::span<const PeerWay> ways,
                                  const std::vector<std::string>& names) {
  std::vector<PeerWay> chosen;
  for (const std::string& name : names) {
    if (name == "none") continue;
    const std::size_t before = chosen.size();
    for (const PeerWay& way : ways) {
      if (name == "all" || name == way.id) chosen.push_back(way);
    }
    if (chosen.size() == before) throw std::runtime_error("there is no peer '" + name + "'");
  }
  return chosen;
}

}  // namespace bench
