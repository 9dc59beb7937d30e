// Bells, memory files, and descriptors that forked children do not keep.
#include "os/eventfd.h"
#include "os/memfd.h"
#include "os/poll.h"
#include "os/read_file.h"
#include "os/uninherited_fd.h"
#include "support/forked.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>

namespace ckptring::os {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

UninheritedFd hidden_eventfd() {
  return UninheritedFd::made_by([] { return make_eventfd(); });
}

template <class Body>
int in_forked_child(Body&& body) {
  return test::exit_status_of_fork(std::forward<Body>(body));
}

/// Whether this thread of ours waits in such a system call.
bool is_in_call(pid_t thread, long call) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/syscall";
  return read_file(path).value_or("").starts_with(std::to_string(call) + " ");
}

// ------------------------------------------------------------------------------------- bells

TEST(Bell, RingsUntilItIsCleared) {
  const UniqueFd bell = make_eventfd();
  EXPECT_FALSE(is_ready(bell.get()));
  ring_bell(bell.get());
  ring_bell(bell.get());
  EXPECT_TRUE(is_ready(bell.get()));
  EXPECT_TRUE(is_ready(bell.get()));
  clear_bell(bell.get());
  EXPECT_FALSE(is_ready(bell.get()));
}

TEST(Bell, ClearingAQuietOneDoesNotWait) {
  const UniqueFd bell = make_eventfd();
  clear_bell(bell.get());
  EXPECT_FALSE(is_ready(bell.get()));
}

TEST(Bell, RingingAFullOneDoesNotWait) {
  const UniqueFd bell = make_eventfd();
  const std::uint64_t nearly_full = UINT64_MAX - 1;
  ASSERT_EQ(::write(bell.get(), &nearly_full, sizeof nearly_full), 8);
  ring_bell(bell.get());
  EXPECT_TRUE(is_ready(bell.get()));
}

TEST(Bell, IsClosedByExec) {
  const UniqueFd bell = make_eventfd();
  EXPECT_NE(::fcntl(bell.get(), F_GETFD) & FD_CLOEXEC, 0);
}

// ------------------------------------------------------------------------------ memory files

TEST(Memfd, HasItsSizeAndKeepsIt) {
  const UniqueFd memory = make_memfd("ckptring-test", 12345);
  struct ::stat status {};
  ASSERT_EQ(::fstat(memory.get(), &status), 0);
  EXPECT_EQ(status.st_size, 12345);
  EXPECT_NE(::ftruncate(memory.get(), 4096), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::ftruncate(memory.get(), 1 << 20), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE), 0) << "nobody may seal it further";
  EXPECT_NE(::fcntl(memory.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(Memfd, CanStillBeWrittenAndMapped) {
  const UniqueFd memory = make_memfd("ckptring-test", 4096);
  void* const at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  *static_cast<char*>(at) = 'x';
  char back = 0;
  EXPECT_EQ(::pread(memory.get(), &back, 1, 0), 1);
  EXPECT_EQ(back, 'x');
  EXPECT_EQ(::munmap(at, 4096), 0);
}

TEST(Memfd, BelongsToThisUserAlone) {
  const UniqueFd memory = make_memfd("ckptring-test", 4096);
  struct ::stat status {};
  ASSERT_EQ(::fstat(memory.get(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

// With the default disposition of SIGXFSZ, which ends a process.
TEST(Memfd, BeyondTheFileSizeLimitIsAnErrorAndNoSignal) {
  const int status = in_forked_child([] {
    const ::rlimit limit{4095, 4095};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    try {
      (void)make_memfd("ckptring-test", 4096);
      return 3;
    } catch (const Error& error) {
      const bool named = error.cause().find("RLIMIT_FSIZE") != std::string::npos;
      return named && error.code() == ErrorCode::out_of_memory ? 0 : 4;
    }
  });
  EXPECT_EQ(status, 0);
}

TEST(Memfd, ASizeThatNoFileCanHaveIsAnError) {
  EXPECT_THROW((void)make_memfd("ckptring-test", 1ull << 63), Error);
}

// ------------------------------------------------------------------------------- ownership

TEST(UniqueFdTest, ClosesOnceAndOnlyWhatItOwns) {
  const int fd = make_eventfd().release();
  ASSERT_TRUE(is_open(fd));
  {
    UniqueFd first(fd);
    UniqueFd second(std::move(first));
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): what is tested
    EXPECT_EQ(second.get(), fd);
    second = UniqueFd(second.release());
    EXPECT_TRUE(is_open(fd));
  }
  EXPECT_FALSE(is_open(fd));
}

TEST(UninheritedFdTest, IsClosedInAForkedChildAndStaysInTheParent) {
  const UninheritedFd hidden = hidden_eventfd();
  const UniqueFd plain = make_eventfd();
  EXPECT_EQ(in_forked_child(
                [&] { return (is_open(hidden.get()) ? 1 : 0) + (is_open(plain.get()) ? 0 : 2); }),
            0);
  EXPECT_TRUE(is_open(hidden.get()));
}

TEST(UninheritedFdTest, IsHiddenFromAGrandchildToo) {
  const UninheritedFd hidden = hidden_eventfd();
  EXPECT_EQ(in_forked_child(
                [&] { return in_forked_child([&] { return is_open(hidden.get()) ? 1 : 0; }); }),
            0);
}

TEST(UninheritedFdTest, MovesAlong) {
  UninheritedFd first = hidden_eventfd();
  const int fd = first.get();
  UninheritedFd second(std::move(first));
  UninheritedFd third;
  third = std::move(second);
  EXPECT_EQ(third.get(), fd);
  EXPECT_EQ(in_forked_child([&] { return is_open(fd) ? 1 : 0; }), 0);
  third.reset();
  EXPECT_FALSE(is_open(fd));
  EXPECT_FALSE(third);
}

TEST(UninheritedFdTest, ANumberThatWasClosedBelongsToSomebodyElse) {
  UninheritedFd hidden = hidden_eventfd();
  const int fd = hidden.get();
  hidden.reset();
  const UniqueFd reused(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, fd));
  ASSERT_EQ(reused.get(), fd);
  EXPECT_EQ(in_forked_child([&] { return is_open(fd) ? 0 : 1; }), 0);
}

TEST(UninheritedFdTest, OfAFileThatTakesLongToOpenHoldsUpNoFork) {
  const test::TemporaryDirectory directory;
  const std::string pipe = directory / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  UninheritedFd file;
  std::atomic<pid_t> opener_id{0};
  std::thread opener([&] {
    opener_id = ::gettid();
    file = open_uninherited(pipe, O_RDONLY);  // returns once somebody writes
  });
  while (!is_in_call(opener_id, SYS_openat)) std::this_thread::yield();
  EXPECT_EQ(in_forked_child([] { return 0; }), 0);
  EXPECT_TRUE(is_in_call(opener_id, SYS_openat));
  const UniqueFd writer(::open(pipe.c_str(), O_WRONLY | O_CLOEXEC));
  opener.join();
  ASSERT_TRUE(file);
  EXPECT_EQ(in_forked_child([&] { return is_open(file.get()) ? 1 : 0; }), 0);
}

TEST(UninheritedFdTest, ThatAForkedChildMayHaveIsMadeAnew) {
  UniqueFd first;
  int made = 0;
  const UninheritedFd hidden = UninheritedFd::made_slowly([&] {
    UniqueFd fd = make_eventfd();
    if (++made == 1) {
      first.reset(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 100));
      // As another thread would do, in just that moment.
      EXPECT_EQ(in_forked_child([&] { return is_open(fd.get()) ? 0 : 1; }), 0);
    }
    return fd;
  });
  EXPECT_EQ(made, 2);
  ASSERT_TRUE(hidden);
  ring_bell(first.get());
  EXPECT_FALSE(is_ready(hidden.get())) << "the one that the child has";
  EXPECT_EQ(in_forked_child([&] { return is_open(hidden.get()) ? 1 : 0; }), 0);
}

TEST(UninheritedFdTest, IsNotMadeWhereForksNeverPauseForThemNotToWaitForEver) {
  int made = 0;
  const UninheritedFd hidden = UninheritedFd::made_slowly([&] {
    ++made;
    EXPECT_EQ(in_forked_child([] { return 0; }), 0);
    return make_eventfd();
  });
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_FALSE(hidden);
  EXPECT_EQ(made, 8);
}

TEST(UninheritedFdTest, IsClosedInAForkedChildFromTheMomentAtWhichItsNumberIsWritten) {
  int number = 7;
  int kept = -1;
  {
    HiddenSlot slot(number);
    EXPECT_EQ(number, -1);
    EXPECT_EQ(in_forked_child([] { return 0; }), 0) << "nothing is there yet";
    number = make_eventfd().release();
    kept = number;
    EXPECT_EQ(in_forked_child([&] { return is_open(kept) ? 1 : 0; }), 0);
    const UninheritedFd taken = slot.take();
    EXPECT_EQ(taken.get(), kept);
    EXPECT_EQ(number, -1);
    EXPECT_EQ(in_forked_child([&] { return is_open(kept) ? 1 : 0; }), 0);
  }
  EXPECT_FALSE(is_open(kept));
  {
    const HiddenSlot slot(number);
    number = make_eventfd().release();  // NOLINT(clang-analyzer-deadcode.DeadStores): slot's
    kept = number;
  }
  EXPECT_FALSE(is_open(kept)) << "that nobody took";
}

TEST(UninheritedFdTest, ForksWhileOthersOpenAndCloseLeakNothing) {
  // A fork in the middle of opening or closing must find the list whole.
  std::atomic<bool> stop{false};
  std::thread opener([&] {
    while (!stop) {
      UninheritedFd one = hidden_eventfd();
      UninheritedFd two = hidden_eventfd();
      one = std::move(two);
    }
  });
  const UninheritedFd hidden = hidden_eventfd();
  int failures = 0;
  for (int i = 0; i < 100; ++i) {
    failures += in_forked_child([&] { return is_open(hidden.get()) ? 1 : 0; }) == 0 ? 0 : 1;
  }
  stop = true;
  opener.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace ckptring::os
