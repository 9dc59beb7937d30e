// Records and files beyond 4 GiB, through the whole path: sync, async, load.
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <random>
#include <span>
#include <stdexcept>

#include "contract/contract.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

constexpr std::uint64_t kGiB = 1ull << 30;
/// More than 32 bits can count.
constexpr std::uint64_t kBytes = 4 * kGiB + 1;

/// Much address space over little memory, which it repeats. A number of pages without small
/// factors is repeated, so that a block that got to another block's place differs from it.
class Repeated {
 public:
  Repeated() {
    memory_ =
        ::mmap(nullptr, kMapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    // Linux 6.3; where vm.memfd_noexec is 2, nothing else is allowed.
    constexpr unsigned kNoExecSeal = 0x0008;
    int fd = ::memfd_create("repeated", MFD_CLOEXEC | kNoExecSeal);
    if (fd < 0 && errno == EINVAL) fd = ::memfd_create("repeated", MFD_CLOEXEC);
    bool made = memory_ != MAP_FAILED && fd >= 0 && ::ftruncate(fd, kPeriod) == 0;
    for (std::uint64_t at = 0; made && at < kMapped; at += kPeriod) {
      made = ::mmap(begin() + at, std::min(kPeriod, kMapped - at), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
    }
    if (fd >= 0) (void)::close(fd);
    if (!made) throw std::runtime_error("cannot map 4 GiB of addresses");
  }
  ~Repeated() { (void)::munmap(memory_, kMapped); }
  Repeated(const Repeated&) = delete;
  Repeated& operator=(const Repeated&) = delete;

  [[nodiscard]] at::Tensor tensor() const {
    return at::from_blob(memory_, {static_cast<std::int64_t>(kBytes)}, at::kByte);
  }
  /// All that there is of it.
  [[nodiscard]] std::span<std::byte> period() const { return {begin(), kPeriod}; }

 private:
  static constexpr std::uint64_t kPeriod = 16'381ull * 4096;
  static constexpr std::uint64_t kMapped = 4 * kGiB + 4096;
  [[nodiscard]] std::byte* begin() const { return static_cast<std::byte*>(memory_); }
  void* memory_;
};

class Large : public Contract {};
INSTANTIATE_TEST_SUITE_P(Paths, Large, testing::Values(Path::sync, Path::async),
                         testing::PrintToStringParamName());

TEST_P(Large, ARecordOfMoreThan4GiBAndOneBeyondItComeBack) {
  if (std::filesystem::space(directory.path()).available < 6 * kGiB) {
    GTEST_SKIP() << directory.path() << " has no room for a file of 4 GiB";
  }
  const Repeated saved;
  std::mt19937_64 random(1);
  for (std::byte& byte : saved.period()) byte = static_cast<std::byte>(random() >> 56);
  const at::Tensor behind = noise({300, 7}, c10::kFloat);
  CheckpointerConfig config = small_ring();
  config.process_config.block_bytes = 4 << 20;
  config.process_config.ring_bytes = 64 << 20;
  checkpointer = make_checkpointer(GetParam(), config);
  const SaveReport report = save("it", dict({{"large", saved.tensor()}, {"behind", behind}}));
  EXPECT_GT(report.bytes, kBytes);

  // Its checksum speaks for the whole record; the last period stays to be looked at.
  const Repeated loaded;
  const at::Tensor small = at::zeros({300, 7});
  (void)checkpointer->load(directory / "it", dict({{"large", loaded.tensor()}, {"behind", small}}));
  EXPECT_EQ(std::memcmp(loaded.period().data(), saved.period().data(), saved.period().size()), 0);
  EXPECT_EQ(bits(small), bits(behind));
}

}  // namespace
}  // namespace ckptring::test
