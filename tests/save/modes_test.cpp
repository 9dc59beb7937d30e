// Files and directories have the modes that the trainer's umask asks for when it saves.
#include "os/umask.h"
#include "save/async_save.h"
#include "save/sync_save.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace ckptring::save {
namespace {

using test::job_for;
using test::noise;

mode_t mode_of(const std::string& path) {
  struct ::stat status {};
  if (::lstat(path.c_str(), &status) != 0) throw std::system_error(errno, std::generic_category());
  return status.st_mode & 07777;
}

/// Either path, made under a umask that is another one when it saves.
class Modes : public ::testing::TestWithParam<bool> {
 protected:
  Modes() {
    const os::ScopedUmask of_the_beginning(022);
    if (is_async()) {
      CheckpointerConfig config;
      config.process_config.executable = CKPTRING_DRAIN_PATH;
      async_.emplace(config, RankInfo{});
      async_->ready();
    }
  }
  static bool is_async() { return GetParam(); }

  void save(const std::string& path) {
    if (is_async()) {
      (void)async_->submit(job_for(path, noise({10'000}, 1))).written.get();
    } else {
      (void)sync_.run(job_for(path, noise({10'000}, 1)));
    }
  }
  std::string file(const std::string& path) const { return directory_ / path + "/checkpoint_0.pt"; }

  test::TemporaryDirectory directory_;
  std::optional<AsyncSave> async_;
  SyncSave sync_{{}, {}, {}};
};

INSTANTIATE_TEST_SUITE_P(Paths, Modes, ::testing::Bool(),
                         [](const auto& path) { return path.param ? "Async" : "Sync"; });

TEST_P(Modes, AreThoseOfTheUmaskAtSave) {
  for (const mode_t mask : {mode_t{0}, mode_t{002}, mode_t{022}, mode_t{027}, mode_t{077}}) {
    const std::string name = "mask" + std::to_string(mask);
    const os::ScopedUmask now(mask);
    save(directory_ / name + "/step");
    EXPECT_EQ(mode_of(directory_ / name), 0777 & ~mask);
    EXPECT_EQ(mode_of(directory_ / name + "/step"), 0777 & ~mask);
    EXPECT_EQ(mode_of(file(name + "/step")), 0666 & ~mask);
  }
}

TEST_P(Modes, OfAFileThatIsReplacedAreNotKept) {
  for (const mode_t mask : {mode_t{022}, mode_t{077}, mode_t{0}}) {
    const os::ScopedUmask now(mask);
    save(directory_ / "run");
    EXPECT_EQ(mode_of(file("run")), 0666 & ~mask);
    std::filesystem::permissions(file("run"), std::filesystem::perms(0640));
  }
}

TEST_P(Modes, DoNotDependOnAProcessThatIsStartedAgain) {
  if (!is_async()) return;
  const os::ScopedUmask now(027);
  ASSERT_EQ(::kill(async_->process_id(), SIGKILL), 0);
  save(directory_ / "run");
  EXPECT_EQ(mode_of(directory_ / "run"), 0750U);
  EXPECT_EQ(mode_of(file("run")), 0640U);
}

TEST_P(Modes, OfASaveThatWaitsForAnotherOneAreItsOwn) {
  if (!is_async()) return;
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.max_saves_in_flight = 8;
  AsyncSave async(config, {});
  std::vector<SaveHandle> saves;
  for (int i = 0; i < 16; ++i) {
    const os::ScopedUmask now(i % 2 == 0 ? 077 : 0);
    saves.push_back(async.submit(job_for(directory_ / std::to_string(i), noise({3'000'000}, 1))));
  }
  for (int i = 0; i < 16; ++i) {
    (void)saves[static_cast<std::size_t>(i)].written.get();
    EXPECT_EQ(mode_of(directory_ / std::to_string(i)), i % 2 == 0 ? 0700U : 0777U) << i;
    EXPECT_EQ(mode_of(file(std::to_string(i))), i % 2 == 0 ? 0600U : 0666U) << i;
  }
}

TEST_P(Modes, KeepTheGroupOfADirectoryThatHandsItOn) {
  std::filesystem::create_directory(directory_ / "shared");
  ASSERT_EQ(::chmod((directory_ / "shared").c_str(), 02775), 0);
  const os::ScopedUmask now(002);
  save(directory_ / "shared/run");
  EXPECT_EQ(mode_of(directory_ / "shared/run"), 02775U);
  EXPECT_EQ(mode_of(file("shared/run")), 0664U);
}

/// What setfacl -d -m u::rwx,g::rwx,o::- says: user, group and others of what is made.
bool set_default_acl(const std::string& directory) {
  constexpr std::array<std::uint16_t, 2 + 3 * 4> kAcl{2,    0,                   // version
                                                      0x01, 7, 0xffff, 0xffff,   // the owner
                                                      0x04, 7, 0xffff, 0xffff,   // the group
                                                      0x20, 0, 0xffff, 0xffff};  // others
  return ::setxattr(directory.c_str(), "system.posix_acl_default", kAcl.data(), sizeof kAcl, 0) ==
         0;
}

TEST_P(Modes, AreThoseOfADirectorysDefaultAclWhateverTheUmask) {
  std::filesystem::create_directory(directory_ / "shared");
  if (!set_default_acl(directory_ / "shared")) {
    GTEST_SKIP() << "this file system takes no ACL: " << std::strerror(errno);
  }
  const os::ScopedUmask now(077);
  save(directory_ / "shared/run");
  EXPECT_EQ(mode_of(directory_ / "shared/run"), 0770U);
  EXPECT_EQ(mode_of(file("shared/run")), 0660U);
}

}  // namespace
}  // namespace ckptring::save
