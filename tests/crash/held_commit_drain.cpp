// A checkpoint process that pauses before each commit until the file that GATE of the environment
// names is there; it tells by GATE.reached that it has come so far.
#include <ckptring/drain.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

namespace {

class Gate : public ckptring::WriterHook {
 public:
  void pre_commit(const ckptring::CheckpointDescription&) override {
    const char* const gate = std::getenv("GATE");
    if (gate == nullptr) throw std::runtime_error("GATE is not set");
    std::ofstream(std::string(gate) + ".reached") << ::getpid();
    while (::access(gate, F_OK) != 0) ::usleep(1000);
  }
};

ckptring::WriterSetup make_writer(const ckptring::RankInfo&) {
  ckptring::WriterSetup setup;
  setup.hook = std::make_unique<Gate>();
  return setup;
}

}  // namespace

int main(int argc, char** argv) { return ckptring::drain_main(argc, argv, make_writer); }
