#include "os/umask.h"

#include "support/forked.h"
#include "support/temporary_directory.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

namespace ckptring::os {
namespace {

TEST(Umask, IsReadWithoutBeingChanged) {
  for (const mode_t mask : {mode_t{0}, mode_t{022}, mode_t{077}, mode_t{0777}}) {
    const mode_t before = ::umask(mask);
    EXPECT_EQ(umask_of_this_thread(), mask);
    EXPECT_EQ(::umask(before), mask);
  }
}

TEST(Umask, IsThatOfTheThreadThatAsks) {
  const mode_t before = ::umask(022);
  std::optional<mode_t> of_the_other;
  std::thread([&] {
    if (::unshare(CLONE_FS) != 0) return;
    (void)::umask(077);
    of_the_other = umask_of_this_thread();
  }).join();
  EXPECT_EQ(umask_of_this_thread(), mode_t{022});
  EXPECT_EQ(of_the_other, mode_t{077});
  (void)::umask(before);
}

TEST(Umask, IsNotKnownWhereNobodyTellsIt) {
  const test::TemporaryDirectory root;
  EXPECT_EQ(umask_of_this_thread(root.path()), std::nullopt);
  std::filesystem::create_directories(root / "proc/thread-self");
  for (const char* status : {"Name:\tx\n", "Name:\tx\nUmask:\t\n", "Name:\tx\nUmask:\t0089\n",
                             "Name:\tx\nUmask:\t77777\n", "Name:\tx\nUmask:\t0022"}) {
    std::ofstream(root / "proc/thread-self/status") << status;
    EXPECT_EQ(umask_of_this_thread(root.path()), std::nullopt) << status;
  }
  std::ofstream(root / "proc/thread-self/status") << "Name:\tx\nUmask:\t0027\nState:\tR\n";
  EXPECT_EQ(umask_of_this_thread(root.path()), mode_t{027});
}

TEST(Umask, IsNotReadThroughAStandardDescriptorThatIsClosed) {
  EXPECT_EQ(test::exit_status_of_fork([] {
              for (int fd = 0; fd < 3; ++fd) (void)::close(fd);
              const ::rlimit only_those{3, 3};
              if (::setrlimit(RLIMIT_NOFILE, &only_those) != 0) return 1;
              return umask_of_this_thread() ? 2 : 0;
            }),
            0);
}

TEST(Umask, IsAnotherForAWhile) {
  const mode_t before = ::umask(022);
  {
    const ScopedUmask narrow(077);
    EXPECT_EQ(umask_of_this_thread(), mode_t{077});
  }
  EXPECT_EQ(umask_of_this_thread(), mode_t{022});
  (void)::umask(before);
}

}  // namespace
}  // namespace ckptring::os
