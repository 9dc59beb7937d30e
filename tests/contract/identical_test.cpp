// Both paths, every way of writing and every ring give the same file, byte for byte.
#include <fstream>
#include <iterator>
#include <tuple>

#include "contract/contract.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

StateDict state() {
  StateDict state = sample_state();
  state.insert_or_assign("large", noise({1 << 20}, c10::kFloat));
  state.insert_or_assign("page", noise({4096}, c10::kByte));
  return state;
}

const SaveOptions kOptions{.step = 7, .metadata = {{"run", "a"}}};

std::string file_of(Checkpointer& checkpointer, const std::string& directory) {
  return contents(checkpointer.save(directory, placed(state()), kOptions).written.get().path);
}

/// How the file is written: mode, blocks in the ring, bytes of a block.
using Way = std::tuple<WriteMode, std::uint64_t, std::uint64_t>;

std::string way_name(const testing::TestParamInfo<Way>& info) {
  const auto [mode, blocks, bytes] = info.param;
  const char* modes[] = {"Automatic", "DirectIoUring", "DirectThreads", "Buffered"};
  return std::string(modes[static_cast<int>(mode)]) + "_" + std::to_string(blocks) + "x" +
         std::to_string(bytes >> 10) + "KiB";
}

class Identical : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    CheckpointerConfig config = small_ring();
    config.writer_config.mode = std::get<WriteMode>(GetParam());
    try {
      (void)file_of(*make_sync_checkpointer(config), directory / "probe");
    } catch (const Error& error) {
      if (error.code() != ErrorCode::invalid_argument) throw;
      GTEST_SKIP() << "this host refuses it: " << error.cause();
    }
  }
  TemporaryDirectory directory;
};

TEST_P(Identical, SyncAndAsyncFilesAreTheSameByteForByte) {
  const auto [mode, blocks, bytes] = GetParam();
  CheckpointerConfig config = small_ring();
  const std::string expected = file_of(*make_sync_checkpointer(config), directory / "expected");
  config.writer_config.mode = mode;
  config.process_config.block_bytes = bytes;
  config.process_config.ring_bytes = blocks * bytes;
  EXPECT_TRUE(file_of(*make_sync_checkpointer(config), directory / "sync") == expected);
  EXPECT_TRUE(file_of(*make_async_checkpointer(config), directory / "async") == expected);
}

constexpr std::uint64_t kSmall = 64 << 10;
INSTANTIATE_TEST_SUITE_P(
    Ways, Identical,
    testing::Values(Way{WriteMode::automatic, 2, kSmall}, Way{WriteMode::automatic, 0, 4 << 20},
                    Way{WriteMode::automatic, 3, 4096}, Way{WriteMode::direct_io_uring, 4, kSmall},
                    Way{WriteMode::direct_threads, 4, kSmall}, Way{WriteMode::buffered, 4, kSmall}),
    way_name);

TEST_P(Identical, SavingTwiceGivesTheSameBytes) {
  const auto [mode, blocks, bytes] = GetParam();
  CheckpointerConfig config = small_ring();
  config.writer_config.mode = mode;
  config.process_config.block_bytes = bytes;
  config.process_config.ring_bytes = blocks * bytes;
  const auto checkpointer = make_async_checkpointer(config);
  EXPECT_TRUE(file_of(*checkpointer, directory / "a") == file_of(*checkpointer, directory / "b"));
}

}  // namespace
}  // namespace ckptring::test
