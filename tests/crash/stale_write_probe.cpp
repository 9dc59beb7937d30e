// Shows what the lock of the temporary is for.
//
// A process starts many direct writes from shared memory to a file whose space is reserved, and is
// killed. As soon as its pidfd is readable the memory is filled with other bytes, as a trainer
// refills a released block. A page of the file that holds such bytes, though nobody wrote them
// there, is damaged. The same again, but the memory is touched only once the dead process's lock
// on the file is free.
//
//   stale_write_probe DIRECTORY [ROUNDS]      on the disk in question; needs 256 MiB, of memory too
//
// Exit status: 0, or 1 if pages were damaged in spite of the lock, or 2 if it cannot run here.
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

namespace {

constexpr unsigned kWrites = 64;
constexpr std::size_t kWriteBytes = 4 << 20;
constexpr std::size_t kBytes = kWrites * kWriteBytes;
constexpr std::size_t kPage = 4096;
constexpr unsigned char kOld = 0x0D;
constexpr unsigned char kNew = 0xEE;

[[noreturn]] void fail(const char* what, int errno_value) {
  throw std::system_error(errno_value, std::generic_category(), what);
}

int checked(int result, const char* what) {
  if (result < 0) fail(what, errno);
  return result;
}

/// In the child: everything in flight, then one byte to whoever will kill it.
[[noreturn]] void write_until_killed(const std::string& path, const std::byte* memory, int tell) {
  try {
    const int fd = checked(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC), "open");
    checked(::flock(fd, LOCK_EX), "flock");
    ::io_uring ring{};
    if (const int error = ::io_uring_queue_init(kWrites, &ring, 0); error < 0) {
      fail("io_uring", -error);
    }
    for (unsigned i = 0; i < kWrites; ++i) {
      ::io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring);
      ::io_uring_prep_write(sqe, fd, memory + i * kWriteBytes, kWriteBytes,
                            std::uint64_t{i} * kWriteBytes);
    }
    if (const int error = ::io_uring_submit(&ring); error < 0) fail("io_uring_submit", -error);
    if (::write(tell, "x", 1) == 1) ::pause();
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s\n", error.what());
  }
  ::_exit(2);
}

/// One round. Returns how many pages hold bytes that nobody wrote there.
std::size_t damaged_pages(const std::string& path, std::byte* memory, bool with_lock) {
  const int file = checked(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
                           "create the file");
  checked(::fallocate(file, 0, 0, static_cast<off_t>(kBytes)), "fallocate");
  checked(::fsync(file), "fsync");
  std::memset(memory, kOld, kBytes);

  std::array<int, 2> ends{};
  checked(::pipe2(ends.data(), O_CLOEXEC), "pipe");
  const pid_t child = checked(::fork(), "fork");
  if (child == 0) write_until_killed(path, memory, ends[1]);
  ::close(ends[1]);
  const int pidfd = checked(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)), "pidfd_open");
  char byte = 0;
  if (::read(ends[0], &byte, 1) != 1) fail("start the writes", ECHILD);
  checked(::kill(child, SIGKILL), "kill");
  ::pollfd gone{pidfd, POLLIN, 0};
  checked(::poll(&gone, 1, -1), "poll");

  if (with_lock) checked(::flock(file, LOCK_EX), "flock");
  std::memset(memory, kNew, kBytes);
  // The writes have to end before anybody can look.
  checked(::flock(file, LOCK_EX), "flock");
  checked(::waitpid(child, nullptr, 0), "waitpid");
  ::close(pidfd);
  ::close(ends[0]);

  std::vector<unsigned char> page(kPage);
  std::size_t damaged = 0;
  for (std::size_t at = 0; at < kBytes; at += kPage) {
    if (::pread(file, page.data(), kPage, static_cast<off_t>(at)) != static_cast<ssize_t>(kPage)) {
      fail("read", errno);
    }
    if (std::memchr(page.data(), kNew, kPage) != nullptr) ++damaged;
  }
  ::close(file);
  return damaged;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    (void)std::fprintf(stderr, "usage: stale_write_probe DIRECTORY [ROUNDS]\n");
    return 2;
  }
  try {
    const std::string path = std::string(argv[1]) + "/stale_write_probe.data";
    const int rounds = argc == 3 ? std::stoi(argv[2]) : 10;
    void* const memory =
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("mmap", errno);
    std::size_t damaged_with_lock = 0;
    for (const bool with_lock : {false, true}) {
      std::size_t damaged = 0;
      int hit = 0;
      for (int round = 0; round < rounds; ++round) {
        const std::size_t pages = damaged_pages(path, static_cast<std::byte*>(memory), with_lock);
        damaged += pages;
        if (pages > 0) ++hit;
      }
      std::printf("%s the lock: %zu damaged pages, in %d of %d rounds\n",
                  with_lock ? "with" : "without", damaged, hit, rounds);
      if (with_lock) damaged_with_lock = damaged;
    }
    (void)::unlink(path.c_str());
    return damaged_with_lock == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "stale_write_probe: %s\n", error.what());
    return 2;
  }
}
