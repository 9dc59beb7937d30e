// A program that has closed its standard input, output and error.
#include "os/new_fd.h"

#include "os/eventfd.h"
#include "os/memfd.h"
#include "os/pidfd.h"
#include "os/poll.h"
#include "os/read_file.h"
#include "os/spawn.h"
#include "os/uninherited_fd.h"
#include "support/forked.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <initializer_list>
#include <thread>

namespace ckptring::os {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

/// Runs `body`, which returns whether all is well, where these descriptors are closed.
/// @return whether it did, and they are still closed
template <class Body>
bool holds_without(std::initializer_list<int> closed, Body&& body) {
  return test::exit_status_of_fork([&] {
           for (const int fd : closed) (void)::close(fd);
           if (!body()) return 1;
           for (const int fd : closed) {
             if (is_open(fd)) return 2;
           }
           return 0;
         }) == 0;
}

TEST(NewFd, IsThreeOrMoreWhicheverStandardOnesAreClosed) {
  const auto opens_above = [] {
    const UniqueFd bell = make_eventfd();
    const UniqueFd memory = make_memfd("ckptring-test", 4096);
    const UniqueFd process = open_pidfd(::getpid());
    const UninheritedFd file = open_uninherited("/dev/null", O_RDWR);
    return bell.get() > 2 && memory.get() > 2 && process.get() > 2 && file.get() > 2;
  };
  EXPECT_TRUE(holds_without({}, opens_above));
  EXPECT_TRUE(holds_without({0}, opens_above));
  EXPECT_TRUE(holds_without({1}, opens_above));
  EXPECT_TRUE(holds_without({2}, opens_above));
  EXPECT_TRUE(holds_without({0, 1, 2}, opens_above));
}

TEST(NewFd, KeepsErrno) {
  EXPECT_TRUE(holds_without({0, 1, 2}, [] {
    return !open_uninherited("/nowhere", O_RDONLY) && errno == ENOENT &&
           !open_uninherited("/dev/null/x", O_RDONLY) && errno == ENOTDIR;
  }));
}

TEST(NewFd, OfAStartedProgramIsThreeOrMoreAndTheProgramHasWhatItWasGiven) {
  EXPECT_TRUE(holds_without({0, 1, 2}, [] {
    const UninheritedFd null = open_uninherited("/dev/null", O_RDWR);
    const Spawned child =
        spawn({.executable = "/bin/sh",
               .arguments = {"sh", "-c", "echo x >&1 && echo y >&2 && test ! -e /proc/self/fd/3"},
               .environment = {},
               .descriptors = {null.get(), null.get(), null.get()}});
    std::array<Waitable, 1> ended{Waitable{child.pidfd.get()}};
    if (child.pidfd.get() < 3 || !wait_any(ended, Deadline::after(60))) return false;
    return reap(child.pidfd.get()).value == 0;
  }));
}

TEST(NewFd, LeavesNothingThatCouldBePrintedToMeanwhile) {
  EXPECT_TRUE(holds_without({0, 1, 2}, [] {
    std::atomic<bool> stop{false};
    std::atomic<int> printed{0};
    // By the system call: to the thread sanitizer, which knows descriptors, this is a race. It is.
    std::thread printer([&] {
      while (!stop) {
        for (const int fd : {0, 1, 2}) {
          printed += ::syscall(SYS_write, fd, "12345678", 8) >= 0 ? 1 : 0;
        }
      }
    });
    for (int i = 0; i < 2000; ++i) {
      const UniqueFd bell = make_eventfd();
      const UniqueFd memory = make_memfd("ckptring-test", 4096);
      (void)read_file("/proc/self/stat");
    }
    stop = true;
    printer.join();
    return printed == 0;
  }));
}

TEST(NewFd, IsMovedIfItGotALowNumberAllTheSame) {
  EXPECT_TRUE(holds_without({1}, [] {
    const int low = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const UniqueFd moved = above_standard_numbers(low);
    return low == 1 && moved.get() > 2 && (::fcntl(moved.get(), F_GETFD) & FD_CLOEXEC) != 0;
  }));
}

TEST(NewFd, LeavesAloneWhatTheProgramPutsThereMeanwhile) {
  EXPECT_EQ(test::exit_status_of_fork([] {
              const UniqueFd mine(::open("/dev/null", O_RDWR | O_CLOEXEC));
              (void)::close(STDOUT_FILENO);
              (void)::close(STDERR_FILENO);
              {
                const StandardNumbersTaken taken;
                if (::dup2(mine.get(), STDOUT_FILENO) != STDOUT_FILENO) return 1;
              }
              return is_open(STDOUT_FILENO) && !is_open(STDERR_FILENO) ? 0 : 2;
            }),
            0);
}

TEST(NewFd, IsThreeOrMoreInAProgramThatReservesTheLowOnesAndToUseThoseFailsAsBefore) {
  EXPECT_EQ(
      test::exit_status_of_fork([] {
        for (int fd = 0; fd < 3; ++fd) (void)::close(fd);
        reserve_standard_numbers();
        char byte = 'x';
        if (::read(0, &byte, 1) >= 0 || ::write(1, &byte, 1) >= 0 || ::write(2, &byte, 1) >= 0) {
          return 1;
        }
        const int plain = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        return plain > 2 ? 0 : 2;
      }),
      0);
}

TEST(ReadFile, GivesAllOfItOrNothing) {
  EXPECT_TRUE(read_file("/proc/self/status").value_or("").starts_with("Name:"));
  EXPECT_GT(read_file("/proc/self/maps").value_or("").size(), 4096u);
  EXPECT_FALSE(read_file("/nowhere"));
  EXPECT_FALSE(read_file("/"));
}

}  // namespace
}  // namespace ckptring::os
