// Bells, memory files, and descriptors that forked children do not keep.
#include "os/eventfd.h"
#include "os/memfd.h"
#include "os/poll.h"
#include "os/uninherited_fd.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

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

/// The exit status of a forked child that runs `body`.
template <class Body>
int in_forked_child(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
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
