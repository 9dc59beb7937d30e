// A small disk of its own, full to any degree, under a whole checkpointer: the save is written or
// fails for want of space, the old file stays until then, and the next save works once there is
// room.
#include "crash/crash_test.h"
#include "save/async_save.h"
#include "support/fault_row.h"
#include "support/own_mounts.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace ckptring::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kFile = 3'000'000;

/// An ext4 file system on a loop device, mounted at `directory`/disk.
void mount_small_ext4(const std::string& directory, const std::string& features) {
  if (std::system("command -v mkfs.ext4 losetup >/dev/null") != 0) {
    throw Refused("a loop device: mkfs.ext4 or losetup is missing");
  }
  const std::string image = directory + "/image";
  const std::string make = "truncate -s 16M " + image + " && mkfs.ext4 -q -b 4096 -m 0 -O " +
                           features + " " + image + " && mkdir " + directory +
                           "/disk && mount -o loop " + image + " " + directory + "/disk";
  if (std::system((make + " 2>/dev/null").c_str()) != 0) throw Refused("a loop device");
}

/// Leaves so many bytes free.
void fill_up_to(const std::string& disk, std::uint64_t free_bytes) {
  struct ::statvfs status {};
  const int filler = ::open((disk + "/filler").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const std::vector<char> page(4096, 'x');
  while (::fstatvfs(filler, &status) == 0 && status.f_bavail * status.f_frsize > free_bytes &&
         ::write(filler, page.data(), page.size()) == static_cast<ssize_t>(page.size())) {
    // What was only promised is not taken off.
    if (status.f_bavail * status.f_frsize < free_bytes + 64 * page.size()) (void)::fsync(filler);
  }
  (void)::fsync(filler);
  ::close(filler);
}

class FullDisk : public CrashTestOfModes {
 protected:
  static CheckpointerConfig config() {
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.block_bytes = 256 << 10;
    config.process_config.ring_bytes = 4 * (256 << 10);
    config.writer_config.mode = GetParam();
    return config;
  }

  /// What goes wrong, as text.
  /// @param reserving whether the file system can reserve space, so that the reservation fails and
  ///        not a write
  std::string fill_and_save(bool reserving) const {
    mount_tmpfs(directory_.path(), "size=64m");
    mount_small_ext4(directory_.path(), reserving ? "extent" : "^extent,^64bit");
    const auto old_state = noise({kFile}, 1);
    const auto new_state = noise({kFile - 5000, 5000}, 2);
    const std::string old_file = undisturbed_file(directory_ / "expected", old_state);
    const std::string new_file = undisturbed_file(directory_ / "expected", new_state);
    const std::string disk = directory_ / "disk";
    const std::string file = disk + "/run/checkpoint_0.pt";
    FaultRow row{"a real disk is full, " + name_of(GetParam()) + (reserving ? "" : ", at a write")};
    int failed = 0;
    int written = 0;
    save::AsyncSave async(config(), {});
    for (std::uint64_t room = 0; room <= 5 << 20; room += 350'000) {
      const std::string here = "with room for " + std::to_string(room) + " bytes: ";
      async.submit(job_for(disk + "/run", old_state)).written.get();
      fill_up_to(disk, room);
      const SaveHandle save = async.submit(job_for(disk + "/run", new_state));
      const std::exception_ptr error = save.written.error();
      ++row.cases;
      try {
        if (error) std::rethrow_exception(error);
        ++written;
      } catch (const Error& named) {
        ++failed;
        const bool right = named.code() == ErrorCode::no_space && named.errno_value() == ENOSPC &&
                           named.path().starts_with(disk) &&
                           (named.operation().find("write") != std::string::npos) != reserving;
        if (!right) return here + named.what();
      }
      if (contents_of(file) != (error ? old_file : new_file)) return here + "torn";
      if (entries_of(disk + "/run") != 1) return here + "something was left";
      fs::remove(disk + "/filler");
      if (async.submit(job_for(disk + "/run", new_state)).written.error() ||
          contents_of(file) != new_file) {
        return here + "the next save";
      }
    }
    async.close();
    if (failed < 3 || written < 3) {
      return std::to_string(failed) + " saves failed, " + std::to_string(written) + " did not";
    }
    row.print();
    return "";
  }

  void expect_only_the_save_fails(bool reserving) const {
    const InOwnMounts said = in_own_mounts([&] { return fill_and_save(reserving); });
    if (!said.refused.empty()) GTEST_SKIP() << said.refused;
    EXPECT_EQ(said.failure, "");
  }
};

TEST_P(FullDisk, ThatReservesSpaceFailsTheSaveAtOnceAndNothingElse) {
  expect_only_the_save_fails(true);
}

TEST_P(FullDisk, ThatFindsOutAtAWriteFailsTheSaveAndNothingElse) {
  expect_only_the_save_fails(false);
}

INSTANTIATE_TEST_SUITE_P(WriteModes, FullDisk, write_modes(), mode_of_test);

}  // namespace
}  // namespace ckptring::test
