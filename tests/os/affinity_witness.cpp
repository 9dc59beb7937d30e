// Writes to standard output the processors that a thread of the library runs on, and which ones its
// maker: "0 1 of 0". It is linked with OpenMP, which may pin the first thread before main.
//
//   affinity_witness [PROCESSOR]   pins itself to that one first
#include "os/affinity.h"
#include "os/own_thread.h"

#include <omp.h>

#include <cstdio>
#include <cstdlib>

namespace {

using ckptring::os::OwnThread;
using ckptring::os::Processors;

void write(const Processors& processors) {
  for (unsigned processor = 0; processor < Processors::kMost; ++processor) {
    if (processors.has(processor)) std::printf("%u ", processor);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (::omp_get_max_threads() < 1) return 1;  // so that OpenMP is linked at all
  if (argc > 1) {
    Processors one;
    one.add(static_cast<unsigned>(std::atoi(argv[1])));
    one.use();
  }
  OwnThread("witness", OwnThread::Priority::foreground, [] {
    write(Processors::of_this_thread());
  }).join();
  std::printf("of ");
  write(Processors::of_this_thread());
  return 0;
}
