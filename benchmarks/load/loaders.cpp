#include "load/loaders.h"

#include "support/page_cache.h"
#include "support/peer.h"
#include "support/progress.h"

#include <array>
#include <utility>

namespace bench {
namespace {

constexpr double kAnswerSecs = 300;

constexpr std::array kPeers{
    PeerWay{"torch_mmap", "torch.load(mmap=True) + copy"},
    PeerWay{"torch_load", "torch.load (+ copy)"},
    PeerWay{"safetensors", "safetensors (+ copy)"},
    PeerWay{"experimental", "_experimental"},
    PeerWay{"dcp", "DCP load"},
};

nlohmann::json ask(Peer& peer, const nlohmann::json& command) {
  return peer.ask(command, kAnswerSecs, check_interrupts);
}

LoadFigures load(Peer& peer, const std::string& path, LoadKind kind) {
  const nlohmann::json answer = ask(peer, {{"load", path}, {"kind", name_of(kind)}});
  if (answer.at("seconds").is_null()) return {};  // it has no such load
  const double gigabytes = answer.at("bytes").get<double>() * 1e-9;
  return {.rate = gigabytes / answer.at("seconds").get<double>(),
          .cpu = answer.at("cpu").get<double>() / gigabytes};
}

}  // namespace

std::span<const PeerWay> peer_loaders() { return kPeers; }

void make_what_is_loaded(const LoaderSpec& spec) {
  try {
    Peer peer(spec.arguments);
    (void)ask(peer, {{"make", spec.path}, {"from", spec.structure}});
  } catch (const PeerError& error) {
    throw ContestantFailed(error.what());
  }
}

Loader::Loader(LoaderSpec spec) : LoadContestant(spec.id, spec.label), spec_(std::move(spec)) {}

LoadRun Loader::run(int /*round*/) {
  LoadRun run;
  try {
    Peer peer(spec_.arguments);
    (void)ask(peer, {{"state", spec_.structure}});
    (void)load(peer, spec_.path, LoadKind::partial);  // pays for what the first of anything pays
    for (const Cache cache : kCaches) {
      for (const LoadKind kind : kLoadKinds) {
        if (cache == Cache::cold) {
          evict(spec_.path);
        } else {
          warm_up(spec_.path);
        }
        run.of(kind, cache) = load(peer, spec_.path, kind);
      }
    }
  } catch (const PeerError& error) {
    throw ContestantFailed(error.what());
  }
  // Whoever comes next shall find the memory free.
  evict(spec_.path);
  return run;
}

}  // namespace bench
