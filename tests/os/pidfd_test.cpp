#include "os/pidfd.h"

#include "os/poll.h"

#include <ckptring/error.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>

namespace ckptring::os {
namespace {

/// A child that waits for its death, or ends at once with a status.
class Child {
 public:
  explicit Child(int status = -1) : pid_(::fork()) {
    if (pid_ == 0) {
      if (status >= 0) ::_exit(status);
      for (;;) ::pause();
    }
    pidfd_ = open_pidfd(pid_);
  }
  ~Child() {
    (void)::kill(pid_, SIGKILL);
    (void)::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  void wait_for_end() const {
    std::array<Waitable, 1> ended{Waitable{pidfd_.get()}};
    ASSERT_TRUE(wait_any(ended, Deadline::after(60)));
  }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
};

TEST(Pidfd, TellsWhenAProcessHasEnded) {
  const Child child;
  EXPECT_FALSE(has_ended(child.pidfd()));
  ASSERT_TRUE(send_signal(child.pidfd(), SIGKILL));
  child.wait_for_end();
  EXPECT_TRUE(has_ended(child.pidfd()));
}

TEST(Pidfd, TellsHowAProcessEndedInWords) {
  const Child exited(3);
  exited.wait_for_end();
  const ExitStatus status = reap(exited.pidfd());
  EXPECT_EQ(status.kind, ExitStatus::Kind::exited);
  EXPECT_EQ(status.value, 3);
  EXPECT_EQ(status.in_words(), "exited with status 3");

  const Child killed;
  ASSERT_TRUE(send_signal(killed.pidfd(), SIGTERM));
  killed.wait_for_end();
  EXPECT_EQ(reap(killed.pidfd()).in_words(), "was terminated by signal 15 (Terminated)");
}

TEST(Pidfd, SaysSoWhenSomebodyElseTookTheStatus) {
  const Child child(0);
  child.wait_for_end();
  ASSERT_EQ(::waitpid(child.pid(), nullptr, 0), child.pid());
  const ExitStatus status = reap(child.pidfd());
  EXPECT_EQ(status.kind, ExitStatus::Kind::unknown);
  EXPECT_EQ(status.in_words(),
            "ended, and its exit status was taken by another part of the program");
}

TEST(Pidfd, ReapingARunningProcessDoesNotWait) {
  const Child child;
  EXPECT_EQ(reap(child.pidfd()).kind, ExitStatus::Kind::unknown);
  EXPECT_FALSE(has_ended(child.pidfd()));
}

TEST(Pidfd, NoSignalReachesAProcessThatIsGone) {
  const Child child(0);
  child.wait_for_end();
  (void)reap(child.pidfd());
  EXPECT_FALSE(send_signal(child.pidfd(), SIGKILL));
}

TEST(Pidfd, CannotBeOpenedOfNobody) { EXPECT_THROW((void)open_pidfd(INT_MAX), Error); }

TEST(Pidfd, OfThisProcessIsQuiet) { EXPECT_FALSE(has_ended(open_pidfd(::getpid()).get())); }

TEST(ProcessState, TellsRunningStoppedAndDead) {
  const Child child;
  EXPECT_EQ(process_state(::getpid()), 'R');
  ASSERT_TRUE(send_signal(child.pidfd(), SIGSTOP));
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED), 0);
  EXPECT_EQ(process_state(child.pid()), 'T');
  ASSERT_TRUE(send_signal(child.pidfd(), SIGKILL));
  child.wait_for_end();
  EXPECT_EQ(process_state(child.pid()), 'Z');
  EXPECT_EQ(process_state(INT_MAX), 0);
}

}  // namespace
}  // namespace ckptring::os
