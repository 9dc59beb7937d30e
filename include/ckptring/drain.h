// The checkpoint process's main, for helper executables of your own:
//
//   int main(int argc, char** argv) { return ckptring::drain_main(argc, argv, make_writer); }
//
// Link ckptring::drain (static, no torch, no CUDA) and name the executable in
// CheckpointProcessConfig::executable.
#pragma once

#include <ckptring/writer.h>

namespace ckptring {

/// Drains the ring whose descriptors were handed over by the trainer, until the trainer asks for
/// shutdown or is gone and everything sealed is committed. Returns the exit status. Called by
/// hand, outside of a trainer, it explains itself on stderr and returns 64.
int drain_main(int argc, char** argv, const WriterFactory& make_writer = {});

}  // namespace ckptring
