// The checkpoint process with the custom writer of these tests.
#include <ckptring/drain.h>

#include <memory>

#include "contract/plain_writer.h"

int main(int argc, char** argv) {
  return ckptring::drain_main(argc, argv, [](const ckptring::RankInfo&) {
    return ckptring::WriterSetup{std::make_unique<ckptring::test::PlainWriter>(), nullptr};
  });
}
