// A trainer on the stand-in's devices, which the tests kill.
//
//   device_trainer HELPER DIRECTORY STATE_BYTES copying|staged
//
// It tells "helper PID", and then either "copying": save `second` is announced and its copies are
// enqueued, and one device does not go on; or "staged": they have ended, and the helper is stopped
// before it has written them.
#include "device/device_training.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

namespace {

using namespace ckptring;        // NOLINT(google-build-using-namespace)
using namespace ckptring::test;  // NOLINT(google-build-using-namespace)

void tell(const std::string& what) {
  const std::string line = what + "\n";
  if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::_Exit(4);
  }
}

int train(char** argv) {
  const std::string directory = argv[2];
  const bool stays_held = std::string(argv[4]) == "copying";
  FakeCuda cuda(2, Schedule::late());
  const DeviceTraining training;
  CheckpointerConfig config = ring_of(kLargeRing);
  config.process_config.executable = argv[1];
  const auto checkpointer = make_async_checkpointer(config);
  checkpointer->save(directory + "/first", training.state()).written.get();
  tell("helper " + std::to_string(checkpointer->process_id()));
  auto held = cuda.hold(cuda.null_stream(1));
  if (!stays_held && ::kill(checkpointer->process_id(), SIGSTOP) != 0) return 3;
  const SaveHandle save = checkpointer->save(directory + "/second", training.state());
  fence_both(save);
  if (stays_held) {
    tell("copying");
  } else {
    held.release();
    save.staged.get();
    tell("staged");
  }
  for (;;) ::pause();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    return train(argv);
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
