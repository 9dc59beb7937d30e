// The disk fails: at every operation of a save, with every error that it may give, once or from
// then on. The save fails with an error that says what failed, leaves nothing behind and the old
// file as it was, and the next save works.

#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"

#include "support/fault_row.h"
#include "support/write_modes.h"

#include <fmt/format.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string_view>
#include <tuple>

namespace ckptring::store::test {
namespace {

constexpr std::size_t kBlock = 16384;

enum class Call {
  make_directory,
  create,
  open,
  lock,
  list,
  look,  // stat, fstat
  set_flags,
  read,
  reserve,
  truncate,
  write,
  sync,
  rename,
  remove,  // unlink, rmdir
};

constexpr std::array<std::string_view, 14> kCallNames = {
    "mkdir", "create",    "open",      "flock", "list",  "stat",   "fcntl",
    "pread", "fallocate", "ftruncate", "write", "fsync", "rename", "unlink"};

std::string_view name_of(Call call) { return kCallNames[static_cast<std::size_t>(call)]; }

/// What to do instead of a system call: fail with this error number, write only this much.
struct Fault {
  int error = 0;
  std::optional<std::size_t> only_bytes = {};
};

class FaultyFiles final : public ForwardingFiles {
 public:
  /// Asked before each call; `number` counts the calls of its kind. May be called by any thread.
  using Decide = std::function<std::optional<Fault>(Call call, unsigned number)>;
  explicit FaultyFiles(Decide decide) : decide_(std::move(decide)) {}

  [[nodiscard]] bool renamed() const { return renamed_; }
  [[nodiscard]] unsigned faults() const { return faults_; }
  /// Of these, the writes that were to be cut off behind their end.
  [[nodiscard]] unsigned harmless() const { return harmless_; }
  [[nodiscard]] unsigned calls(Call call) const { return calls_[static_cast<std::size_t>(call)]; }
  /// Whether a write at this offset ended with an error.
  [[nodiscard]] bool failed_at(std::uint64_t block_offset) const {
    const std::scoped_lock lock(mutex_);
    return failed_.count(block_offset) != 0;
  }

  int open(const std::string& path, int flags, mode_t mode) override {
    return instead((flags & O_CREAT) != 0 ? Call::create : Call::open,
                   [&] { return ForwardingFiles::open(path, flags, mode); });
  }
  int mkdir(const std::string& path, mode_t mode) override {
    return instead(Call::make_directory, [&] { return ForwardingFiles::mkdir(path, mode); });
  }
  int flock(int fd, int operation) override {
    return instead(Call::lock, [&] { return ForwardingFiles::flock(fd, operation); });
  }
  int list(const std::string& path, std::vector<std::string>& names) override {
    return instead(Call::list, [&] { return ForwardingFiles::list(path, names); });
  }
  int stat(const std::string& path, struct ::stat& out, bool follow) override {
    return instead(Call::look, [&] { return ForwardingFiles::stat(path, out, follow); });
  }
  int fstat(int fd, struct ::stat& out) override {
    return instead(Call::look, [&] { return ForwardingFiles::fstat(fd, out); });
  }
  int set_flags(int fd, int flags) override {
    return instead(Call::set_flags, [&] {
      const int result = ForwardingFiles::set_flags(fd, flags);
      if (result == 0) direct_ = (flags & O_DIRECT) != 0;
      return result;
    });
  }
  ssize_t pread(int fd, void* data, std::size_t size, std::uint64_t offset) override {
    return instead(Call::read, [&] { return ForwardingFiles::pread(fd, data, size, offset); });
  }
  int fallocate(int fd, std::uint64_t bytes) override {
    return instead(Call::reserve, [&] { return ForwardingFiles::fallocate(fd, bytes); });
  }
  int ftruncate(int fd, std::uint64_t bytes) override {
    return instead(Call::truncate, [&] { return ForwardingFiles::ftruncate(fd, bytes); });
  }
  ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                 int rwf_flags) override {
    if (rwf_flags != RWF_DSYNC && !direct_) ADD_FAILURE() << "a write does not wait for the disk";
    constexpr int kInMemory = 0;  // as fsync below
    const std::optional<Fault> fault = fault_of(Call::write);
    if (fault && fault->only_bytes) {
      if (*fault->only_bytes >= size) ++harmless_;
      return ForwardingFiles::pwrite(fd, data, std::min(size, *fault->only_bytes), offset,
                                     kInMemory);
    }
    if (!fault) return ForwardingFiles::pwrite(fd, data, size, offset, kInMemory);
    if (fault->error != EINTR && fault->error != EAGAIN) {
      const std::scoped_lock lock(mutex_);
      failed_.insert(offset - offset % kBlock);
    }
    errno = fault->error;
    return -1;
  }
  int fsync(int fd) override {
    // The power stays on here: waiting for the disk would only take time.
    return instead(Call::sync, [&] { return fd >= 0 ? 0 : -1; });
  }
  int rename(const std::string& from, const std::string& to) override {
    return instead(Call::rename, [&] {
      const int result = ForwardingFiles::rename(from, to);
      if (result == 0) renamed_ = true;
      return result;
    });
  }
  int unlink(const std::string& path) override {
    return instead(Call::remove, [&] { return ForwardingFiles::unlink(path); });
  }
  int rmdir(const std::string& path) override {
    return instead(Call::remove, [&] { return ForwardingFiles::rmdir(path); });
  }

 private:
  std::optional<Fault> fault_of(Call call) {
    const std::optional<Fault> fault = decide_(call, calls_[static_cast<std::size_t>(call)]++);
    if (fault) ++faults_;
    return fault;
  }
  template <class Real>
  auto instead(Call call, Real real) -> decltype(real()) {
    if (const std::optional<Fault> fault = fault_of(call)) {
      errno = fault->error;
      return -1;
    }
    return real();
  }

  Decide decide_;
  std::array<std::atomic<unsigned>, kCallNames.size()> calls_{};
  std::atomic<unsigned> faults_ = 0;
  std::atomic<unsigned> harmless_ = 0;
  std::atomic<bool> renamed_ = false;
  std::atomic<bool> direct_ = false;
  mutable std::mutex mutex_;
  std::set<std::uint64_t> failed_;
};

class DiskFault : public ::testing::TestWithParam<std::tuple<Call, int, WriteMode>> {
 protected:
  void SetUp() override {
    // Calls that only the way past the page cache makes.
    if (call() != Call::set_flags && call() != Call::read) return;
    const std::string refusal = ckptring::test::refusal_of(WriteMode::direct_threads);
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
  [[nodiscard]] static Call call() { return std::get<0>(GetParam()); }
  [[nodiscard]] static int error_number() { return std::get<1>(GetParam()); }
  [[nodiscard]] static WriteMode mode() { return std::get<2>(GetParam()); }

  [[nodiscard]] std::string directory() const { return disk_ / "run/step_1"; }
  [[nodiscard]] std::string file() const { return directory() + "/checkpoint_0.pt"; }

  /// The error that a save ends with; nothing if it was written.
  std::optional<Error> save(FaultyFiles& files, const std::vector<std::byte>& bytes) const {
    std::unique_ptr<SaveSink> one;
    std::vector<AlignedBytes> blocks;  // outlives the sink's writes
    try {
      const SaveTarget where = make_target(system_files(), directory(), {0, 1}, bytes.size());
      CheckpointWriterConfig config;
      config.mode = mode();
      one = make_file_sink(files, config, where, nullptr);
      if (!one->begin(Beginning::fresh)) {
        throw Error(ErrorCode::busy_elsewhere, "begin", directory(), "held elsewhere");
      }
      std::vector<std::uint64_t> done;
      const auto reap = [&] {
        const std::size_t before = done.size();
        const auto check = [&] {
          for (std::size_t i = before; i < done.size(); ++i) {
            EXPECT_FALSE(files.failed_at(done[i] * kBlock)) << "a failed block was released";
          }
        };
        try {
          one->reap(done);
        } catch (...) {
          check();
          throw;
        }
        check();
      };
      const std::size_t count = block_count(bytes.size(), kBlock);
      for (std::size_t block = 0; block < count; ++block) {
        const std::size_t size = std::min(kBlock, bytes.size() - block * kBlock);
        std::memcpy(blocks.emplace_back(size).data(), bytes.data() + block * kBlock, size);
      }
      for (std::size_t block = 0; block < count;) {
        if (one->room() == 0) {
          wait_for_completion(*one);
          reap();
          continue;
        }
        AlignedBytes& memory = blocks[block];
        one->submit({block, block * kBlock, memory.data(), memory.size(),
                     base::align_up(memory.size(), 4096)});
        ++block;
      }
      for (reap(); done.size() < count; reap()) wait_for_completion(*one);
      one->commit(kIgnorePhases);
      return {};
    } catch (const Error& error) {
      if (one) one->abort();
      return error;
    }
  }

  /// A save over `files`, and all that is promised of it if it fails. Whether a fault was met.
  /// @param cleans_up whether the disk lets a failed save be undone
  bool try_save(FaultyFiles& files, const std::string& what, bool old_there, bool cleans_up) {
    const ::testing::ScopedTrace trace(__FILE__, __LINE__, what);
    std::filesystem::remove_all(disk_ / "run");
    if (old_there) {
      std::filesystem::create_directories(directory());
      write_text(file(), "the old file");
    }
    const std::optional<Error> error = save(files, bytes_);
    if (files.faults() == 0) {
      EXPECT_FALSE(error.has_value());
      return false;
    }
    if (!error) {
      EXPECT_TRUE(may_do_without() || files.harmless() == files.faults())
          << "the fault went unnoticed";
      EXPECT_EQ(contents(file()), bytes_);
    } else {
      EXPECT_EQ(error->errno_value(), error_number()) << error->what();
      EXPECT_EQ(error->code(), Error::from_errno(error_number(), "", "").code());
      EXPECT_FALSE(error->operation().empty());
      EXPECT_FALSE(error->cause().empty());
      EXPECT_EQ(error->path().rfind(disk_.path().substr(0, disk_.path().rfind('/')), 0), 0U)
          << error->what();
      if (files.renamed()) {
        EXPECT_EQ(contents(file()), bytes_);
      } else if (old_there) {
        EXPECT_EQ(std::filesystem::file_size(file()), 12U);
      }
      if (cleans_up) {
        EXPECT_EQ(tree(disk_.path()), old_there || files.renamed()
                                          ? (std::vector<std::string>{"run", "run/step_1",
                                                                      "run/step_1/checkpoint_0.pt"})
                                          : std::vector<std::string>{});
      }
      ++failed_;
    }
    ++cases_;
    // The disk works again.
    FaultyFiles sound([](Call, unsigned) { return std::nullopt; });
    const std::optional<Error> later = save(sound, next_bytes_);
    EXPECT_FALSE(later.has_value()) << later->what();
    EXPECT_EQ(contents(file()), next_bytes_);
    EXPECT_EQ(tree(directory()), std::vector<std::string>{"checkpoint_0.pt"});
    return true;
  }

  /// O_DIRECT is tried out and given up; some errors pass.
  [[nodiscard]] static bool may_do_without() {
    return call() == Call::set_flags || call() == Call::read || error_number() == EINTR ||
           error_number() == EAGAIN || error_number() == 0;
  }

  void report(const std::string& row) const {
    ckptring::test::FaultRow{"disk: " + row, cases_, 0, ckptring::test::broken_expectations()}
        .report();
  }

  TemporaryDirectory disk_;
  std::vector<std::byte> bytes_ = random_bytes(100'000);
  std::vector<std::byte> next_bytes_ = random_bytes(60'000, 2);
  unsigned cases_ = 0;
  unsigned failed_ = 0;
};

std::string errno_name(int error) {
  const char* const name = ::strerrorname_np(error);
  return name != nullptr ? name : std::to_string(error);
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<Call, int, WriteMode>>& info) {
  const auto& [call, error, mode] = info.param;
  return fmt::format("{}_{}_{}", name_of(call), errno_name(error),
                     mode == WriteMode::buffered ? "buffered" : "direct");
}

// `automatic` is O_DIRECT from threads here: the seam sees every write, as it would not see those
// of io_uring, and the save may fall back to the page cache.
const auto kModes = ::testing::Values(WriteMode::automatic, WriteMode::buffered);

INSTANTIATE_TEST_SUITE_P(
    Space, DiskFault,
    ::testing::Combine(::testing::Values(Call::make_directory, Call::create, Call::reserve,
                                         Call::truncate, Call::write, Call::sync, Call::rename),
                       ::testing::Values(ENOSPC, EDQUOT), kModes),
    case_name);
INSTANTIATE_TEST_SUITE_P(
    Broken, DiskFault,
    ::testing::Combine(::testing::Values(Call::make_directory, Call::create, Call::open, Call::lock,
                                         Call::list, Call::look, Call::reserve, Call::truncate,
                                         Call::write, Call::sync, Call::rename),
                       ::testing::Values(EIO), kModes),
    case_name);
// Calls that only the way past the page cache makes.
INSTANTIATE_TEST_SUITE_P(BrokenDirect, DiskFault,
                         ::testing::Combine(::testing::Values(Call::set_flags, Call::read),
                                            ::testing::Values(EIO),
                                            ::testing::Values(WriteMode::automatic)),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Descriptors, DiskFault,
                         ::testing::Combine(::testing::Values(Call::create, Call::open, Call::list),
                                            ::testing::Values(EMFILE, ENFILE), kModes),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Rights, DiskFault,
                         ::testing::Combine(::testing::Values(Call::make_directory, Call::create,
                                                              Call::open, Call::rename),
                                            ::testing::Values(EACCES, EROFS, ENAMETOOLONG), kModes),
                         case_name);
// Passing ones, which only fail a save if they do not pass.
INSTANTIATE_TEST_SUITE_P(Interrupted, DiskFault,
                         ::testing::Combine(::testing::Values(Call::write),
                                            ::testing::Values(EINTR, EAGAIN), kModes),
                         case_name);

TEST_P(DiskFault, FailsOnlyTheSaveAtAnyOfItsCalls) {
  for (const bool old_there : {false, true}) {
    for (const bool for_good : {false, true}) {
      unsigned at = 0;
      for (;; ++at) {
        FaultyFiles files([&](Call which, unsigned number) -> std::optional<Fault> {
          const bool met = which == call() && (for_good ? number >= at : number == at);
          return met ? std::optional(Fault{error_number()}) : std::nullopt;
        });
        const std::string what =
            fmt::format("{} {} {}, {}", name_of(call()), for_good ? "from" : "at", at,
                        old_there ? "old file" : "no file");
        if (!try_save(files, what, old_there, /*cleans_up=*/true)) break;
        if (for_good && call() == Call::write &&
            (error_number() == EINTR || error_number() == EAGAIN)) {
          EXPECT_GT(failed_, 0U);
        }
      }
      ASSERT_LT(at, 100U);
    }
  }
  report(fmt::format("{} at {}", errno_name(error_number()), name_of(call())));
}

class DyingDisk : public DiskFault {};

INSTANTIATE_TEST_SUITE_P(FromSomeCallOn, DyingDisk,
                         ::testing::Combine(::testing::Values(Call::remove),
                                            ::testing::Values(EIO, EROFS), kModes),
                         case_name);

// From some call on nothing can be changed any more, so nothing can be cleaned up either.
TEST_P(DyingDisk, LosesNothingThatWasThereAndIsCleanedUpByTheNextSave) {
  for (const bool old_there : {false, true}) {
    for (unsigned at = 0;; ++at) {
      std::atomic<unsigned> changes = 0;
      FaultyFiles files([&](Call which, unsigned) -> std::optional<Fault> {
        switch (which) {
          case Call::open:
          case Call::lock:
          case Call::list:
          case Call::look:
          case Call::set_flags:
          case Call::read:
            return {};
          default:
            return changes++ >= at ? std::optional(Fault{error_number()}) : std::nullopt;
        }
      });
      if (!try_save(files, fmt::format("from change {}", at), old_there, /*cleans_up=*/false)) {
        ASSERT_GT(at, 8U);
        break;
      }
    }
  }
  report(fmt::format("{} from any change on", errno_name(error_number())));
}

class ShortWrites : public DiskFault {};

INSTANTIATE_TEST_SUITE_P(Any, ShortWrites,
                         ::testing::Combine(::testing::Values(Call::write),
                                            ::testing::Values(0, EIO, ENOSPC), kModes),
                         case_name);

// A disk that is nearly full takes a part of a write, and then nothing more.
TEST_P(ShortWrites, AreFinishedOrFailWithWhatFollowsThem) {
  for (const std::size_t taken : {std::size_t{0}, std::size_t{1}, std::size_t{512},
                                  std::size_t{4096}, std::size_t{5000}, kBlock - 1}) {
    for (unsigned at = 0;; ++at) {
      FaultyFiles files([&](Call which, unsigned number) -> std::optional<Fault> {
        if (which != Call::write || number < at) return {};
        // Direct writes are whole units, but the kernel may say that it wrote a part of one.
        if (number == at) return Fault{0, taken};
        return error_number() != 0 ? std::optional(Fault{error_number()}) : std::nullopt;
      });
      const bool unaligned = mode() != WriteMode::buffered && taken % 4096 != 0;
      if (unaligned) break;  // the kernel refuses to be asked for it
      if (!try_save(files, fmt::format("{} bytes at write {}", taken, at), false, true)) break;
    }
  }
  if (error_number() == 0) {
    EXPECT_EQ(failed_, 0U);
  } else {
    EXPECT_GT(failed_, 0U);
  }
  report(error_number() == 0 ? "short writes"
                             : errno_name(error_number()) + " after a short write");
}

}  // namespace
}  // namespace ckptring::store::test
