// A checkpoint process that pauses before its Nth commit (N from 1) until the file GATE.before.N is
// there, and after it until GATE.after.N is; GATE.open lets it pass everywhere. GATE is what the
// environment calls so. It tells by GATE.before.N.reached, GATE.after.N.reached that it has come so
// far.
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
    ++commits_;
    pause("before");
  }
  void post_commit(const ckptring::CheckpointDescription&) override { pause("after"); }

 private:
  void pause(const std::string& when) const {
    const char* const gate = std::getenv("GATE");
    if (gate == nullptr) throw std::runtime_error("GATE is not set");
    const std::string here = std::string(gate) + "." + when + "." + std::to_string(commits_);
    const std::string open = std::string(gate) + ".open";
    std::ofstream(here + ".reached") << ::getpid();
    while (::access(here.c_str(), F_OK) != 0 && ::access(open.c_str(), F_OK) != 0) ::usleep(1000);
  }

  int commits_ = 0;
};

ckptring::WriterSetup make_writer(const ckptring::RankInfo&) {
  ckptring::WriterSetup setup;
  setup.hook = std::make_unique<Gate>();
  return setup;
}

}  // namespace

int main(int argc, char** argv) { return ckptring::drain_main(argc, argv, make_writer); }
