#include "fuzz/replay.h"

#include "fuzz/seeds.h"
#include "fuzz/targets.h"

#include <gtest/gtest.h>

namespace ckptring::fuzz {
namespace {

TEST(FuzzReplay, AnyArchiveIsLoadedOrRefused) {
  replay(archive_seeds(), load_archive, 10000, "archives, loaded");
}

TEST(FuzzReplay, AnyPickleIsLoadedOrRefused) {
  replay(pickle_seeds(), load_any_pickle, 50000, "pickles, loaded");
}

}  // namespace
}  // namespace ckptring::fuzz
