#include "os/spawn.h"

#include "os/pidfd.h"
#include "os/poll.h"

#include "support/forbid_calls.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <sstream>
#include <string>
#include <thread>

namespace ckptring::os {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    read_end.reset(ends[0]);
    write_end.reset(ends[1]);
  }
  UniqueFd read_end;
  UniqueFd write_end;
};

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> part{};
  for (;;) {
    const auto got = ::read(fd, part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(part.data(), static_cast<std::size_t>(got));
  }
}

ExitStatus wait_for(const Spawned& child) {
  std::array<Waitable, 1> ended{Waitable{child.pidfd.get()}};
  EXPECT_TRUE(wait_any(ended, Deadline::after(60)));
  return reap(child.pidfd.get());
}

class SpawnTest : public ::testing::Test {
 protected:
  SpawnTest() { request_.arguments = {"witness"}; }

  /// Lines "KIND rest" that the witness wrote, those of one kind without it, sorted.
  std::vector<std::string> found(const std::string& kind) {
    if (output_.empty()) {
      Pipe pipe;
      request_.executable = CKPTRING_SPAWN_WITNESS;
      request_.descriptors.insert(request_.descriptors.begin(),
                                  {null_.get(), pipe.write_end.get(), STDERR_FILENO});
      const Spawned child = spawn(request_);
      pipe.write_end.reset();
      output_ = read_all(pipe.read_end.get());
      EXPECT_EQ(wait_for(child).in_words(), "exited with status 0");
    }
    std::vector<std::string> rest;
    std::istringstream lines(output_);
    for (std::string line; std::getline(lines, line);) {
      if (line == kind) rest.emplace_back();
      if (line.starts_with(kind + " ")) rest.push_back(line.substr(kind.size() + 1));
    }
    std::sort(rest.begin(), rest.end());
    return rest;
  }

  SpawnRequest request_;
  UniqueFd null_{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  std::string output_;
};

TEST_F(SpawnTest, TheProgramHasTheArgumentsAndTheEnvironmentThatWereGiven) {
  request_.arguments = {"name", "one", "two words"};
  request_.environment = {"A=1", "B=x=y"};
  EXPECT_THAT(found("argument"), ElementsAre("name", "one", "two words"));
  EXPECT_THAT(found("environment"), ElementsAre("A=1", "B=x=y"));
}

TEST_F(SpawnTest, TheProgramHasExactlyTheDescriptorsThatWereGiven) {
  // These must not arrive, close-on-exec or not.
  const UniqueFd inheritable(::open("/dev/null", O_RDONLY));
  const UniqueFd far_away(::fcntl(inheritable.get(), F_DUPFD, 700));
  ASSERT_GE(far_away.get(), 700);
  request_.descriptors = {null_.get(), null_.get()};
  EXPECT_THAT(found("descriptor"), ElementsAre("0", "1", "2", "3", "4"));
}

TEST_F(SpawnTest, SoItIsWithoutCloseRange) {
  const UniqueFd inheritable(::open("/dev/null", O_RDONLY));
  const UniqueFd far_away(::fcntl(inheritable.get(), F_DUPFD, 700));
  ASSERT_GE(far_away.get(), 700);
  ASSERT_TRUE(test::limit_descriptors(500));  // which leaves alone what is there
  request_.descriptors = {null_.get(), null_.get()};
  std::thread older([this] {
    ASSERT_TRUE(test::forbid_call(__NR_close_range, ENOSYS));
    EXPECT_THAT(found("descriptor"), ElementsAre("0", "1", "2", "3", "4"));
    const Spawned child = spawn({.executable = "/bin/true",
                                 .arguments = {"true"},
                                 .environment = {},
                                 .descriptors = {null_.get()}});
    EXPECT_TRUE(child.closed_one_by_one);
    EXPECT_EQ(wait_for(child).value, 0);
  });
  older.join();
}

TEST_F(SpawnTest, DescriptorsMayBeGivenInAnyOrderAndTwice) {
  // Each target is the source of another one.
  Pipe first;
  Pipe second;
  ASSERT_GE(first.write_end.get(), 3);
  SpawnRequest shell;
  shell.executable = "/bin/sh";
  shell.arguments = {"sh", "-c", "echo one >&4; echo two >&3; echo three >&5"};
  shell.descriptors = {null_.get(),           STDERR_FILENO,
                       STDOUT_FILENO,         second.write_end.get(),
                       first.write_end.get(), second.write_end.get()};
  const Spawned child = spawn(shell);
  first.write_end.reset();
  second.write_end.reset();
  EXPECT_EQ(read_all(first.read_end.get()), "one\n");
  EXPECT_EQ(read_all(second.read_end.get()), "two\nthree\n");
  EXPECT_EQ(wait_for(child).value, 0);
}

TEST_F(SpawnTest, TheProgramLeadsASessionOfItsOwn) {
  EXPECT_THAT(found("own session"), ElementsAre(""));
}

TEST_F(SpawnTest, NoSignalIsBlockedOrIgnoredInTheProgram) {
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  for (const int signal : {SIGTERM, SIGUSR1, SIGCHLD}) sigaddset(&blocked, signal);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &blocked, &before), 0);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  struct sigaction usual_hup {};
  struct sigaction usual_pipe {};
  ASSERT_EQ(::sigaction(SIGHUP, &ignore, &usual_hup), 0);
  ASSERT_EQ(::sigaction(SIGPIPE, &ignore, &usual_pipe), 0);
  EXPECT_THAT(found("blocked"), ElementsAre());
  EXPECT_THAT(found("not default"), ElementsAre());
  struct sigaction now {};
  ASSERT_EQ(::sigaction(SIGHUP, &usual_hup, &now), 0);
  EXPECT_EQ(now.sa_handler, SIG_IGN) << "the trainer's own dispositions stay";
  ASSERT_EQ(::sigaction(SIGPIPE, &usual_pipe, nullptr), 0);
  sigset_t mask;
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, &before, &mask), 0);
  EXPECT_EQ(sigismember(&mask, SIGUSR1), 1) << "and so does its mask";
  EXPECT_EQ(sigismember(&mask, SIGINT), 0);
}

volatile std::sig_atomic_t handled = 0;

TEST_F(SpawnTest, AHandlerOfTheTrainerStillWorksAfterwards) {
  struct sigaction handler {};
  handler.sa_handler = [](int) { handled = handled + 1; };
  struct sigaction before {};
  ASSERT_EQ(::sigaction(SIGUSR2, &handler, &before), 0);
  EXPECT_THAT(found("not default"), ElementsAre());
  handled = 0;
  ASSERT_EQ(::raise(SIGUSR2), 0);
  EXPECT_EQ(handled, 1);
  ASSERT_EQ(::sigaction(SIGUSR2, &before, nullptr), 0);
}

TEST_F(SpawnTest, FailsWithTheReasonOfTheExec) {
  const auto failure = [&](const std::string& executable) {
    request_.executable = executable;
    try {
      (void)spawn(request_);
    } catch (const Error& error) {
      return std::pair{error.errno_value(), std::string(error.what())};
    }
    return std::pair{0, std::string{}};
  };
  EXPECT_EQ(failure("/nowhere/at/all").first, ENOENT);
  EXPECT_THAT(failure("/nowhere/at/all").second, HasSubstr("start /nowhere/at/all: No such file"));
  EXPECT_EQ(failure("/tmp").first, EACCES);
  EXPECT_EQ(failure("/etc/passwd").first, EACCES);
  request_.descriptors = {-1};
  EXPECT_EQ(failure("/bin/true").first, EBADF);
  // Nobody is left to be reaped.
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(SpawnTest, GivesThePidfdOfTheVeryProcess) {
  request_.executable = "/bin/sleep";
  request_.arguments = {"sleep", "1000"};
  request_.descriptors = {null_.get(), null_.get(), null_.get()};
  const Spawned child = spawn(request_);
  EXPECT_FALSE(has_ended(child.pidfd.get()));
  EXPECT_EQ(::kill(child.pid, 0), 0);
  ASSERT_TRUE(send_signal(child.pidfd.get(), SIGKILL));
  EXPECT_EQ(wait_for(child).in_words(), "was terminated by signal 9 (Killed)");
}

TEST_F(SpawnTest, WorksFromSeveralThreadsAtOnce) {
  request_.executable = "/bin/true";
  request_.arguments = {"true"};
  request_.descriptors = {null_.get(), null_.get(), null_.get()};
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        const Spawned child = spawn(request_);
        const ExitStatus status = wait_for(child);
        good += status.kind == ExitStatus::Kind::exited && status.value == 0 ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 40);
}

}  // namespace
}  // namespace ckptring::os
