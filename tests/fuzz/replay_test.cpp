#include "fuzz/replay.h"

#include "fuzz/seeds.h"
#include "fuzz/targets.h"

#include <gtest/gtest.h>

namespace ckptring::fuzz {
namespace {

TEST(FuzzReplay, AnyArchiveIsReadOrRefused) {
  replay(archive_seeds(), read_archive, 50000, "archives");
}

TEST(FuzzReplay, AnyPickleIsReadOrRefused) {
  replay(pickle_seeds(), read_any_pickle, 200000, "pickles");
}

}  // namespace
}  // namespace ckptring::fuzz
