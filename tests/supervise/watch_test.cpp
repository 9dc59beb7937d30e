// The trainer watches its checkpoint process.
#include "drain/drain_protocol.h"
#include "os/pidfd.h"
#include "os/spawn.h"
#include "ring/producer.h"
#include "ring/segment.h"
#include "save/async_save.h"
#include "supervise/checkpoint_process.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <ckptring/log.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace ckptring::save {
namespace {

using test::job_for;
using test::noise;

CheckpointerConfig config() {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = 4 * (64 << 10);
  return config;
}

/// A program in `directory` that runs `script`.
std::string program(const test::TemporaryDirectory& directory, const std::string& script) {
  std::string path = directory / "program";
  std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

std::string failure_of(AsyncSave& async) {
  try {
    async.ready();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::process_failed);
    return error.what();
  }
  return "ready";
}

TEST(Watch, KillsAndRestartsAStoppedProcessSoThatTheSaveCompletes) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig impatient = config();
  impatient.process_config.stopped_timeout_secs = 0.2;
  AsyncSave async(impatient, {});
  async.ready();
  ASSERT_EQ(::kill(async.process_id(), SIGSTOP), 0);
  const SaveHandle save = async.submit(job_for(directory / "run", noise({2'000'000}, 1)));
  EXPECT_GE(save.written.get().restarts, 1u);
}

TEST(Watch, RestartsAProcessThatDiesWhileIdle) {
  const test::TemporaryDirectory directory;
  AsyncSave async(config(), {});
  async.ready();
  const int first = async.process_id();
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  while (async.process_id() == first || async.process_id() == 0) std::this_thread::yield();
  EXPECT_NO_THROW(async.submit(job_for(directory / "run", noise({2'000'000}, 2))).written.get());
}

TEST(Watch, PassesTheLastWordsOfAProgramThatCannotRunOn) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig failing = config();
  failing.process_config.executable =
      program(directory, "echo 'libmagic.so: cannot open shared object file' >&2; exit 127");
  failing.process_config.max_restarts = 1;
  AsyncSave async(failing, {});
  const std::string failure = failure_of(async);
  EXPECT_NE(failure.find("exited with status 127"), std::string::npos) << failure;
  EXPECT_NE(failure.find("libmagic.so: cannot open shared object file"), std::string::npos)
      << failure;
  EXPECT_NE(failure.find("after 1 restarts"), std::string::npos) << failure;
}

/// Counts the warnings that the helper could not be started.
class FailedStarts {
 public:
  FailedStarts() {
    set_log_handler([this](LogLevel, std::string_view line) {
      if (line.find("could not be started") != std::string_view::npos) ++count_;
    });
  }
  ~FailedStarts() { set_log_handler({}); }
  FailedStarts(const FailedStarts&) = delete;
  FailedStarts& operator=(const FailedStarts&) = delete;

  /// @return whether there were so many before patience ended
  [[nodiscard]] bool wait_for(int count) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (count_ < count && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    return count_ >= count;
  }

 private:
  std::atomic<int> count_{0};
};

/// Nothing more can be opened while it exists.
class NoDescriptors {
 public:
  NoDescriptors() {
    if (::getrlimit(RLIMIT_NOFILE, &before_) != 0) throw std::runtime_error("getrlimit");
    const int lowest = ::dup(STDERR_FILENO);
    ::close(lowest);
    const ::rlimit none{static_cast<::rlim_t>(lowest), before_.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &none) != 0) throw std::runtime_error("setrlimit");
  }
  ~NoDescriptors() { (void)::setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  ::rlimit before_{};
};

TEST(Watch, StartsItOnceAShortageOfDescriptorsHasPassedAndTheSaveCompletes) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig patient = config();
  patient.process_config.max_restarts = 1000;
  AsyncSave async(patient, {});
  async.ready();
  const FailedStarts failed;
  const int first = async.process_id();
  ASSERT_EQ(::kill(first, SIGSTOP), 0);
  const SaveHandle save = async.submit(job_for(directory / "run", noise({2'000'000}, 1)));
  {
    const NoDescriptors shortage;
    ASSERT_EQ(::kill(first, SIGKILL), 0);
    EXPECT_TRUE(failed.wait_for(2));
  }
  EXPECT_NO_THROW(save.written.get());
}

/// Linux 6.11 and 6.12 start a program also while it is being written.
bool starts_while_written_to(const test::TemporaryDirectory& directory) {
  const std::string path = program(directory, "exit 0");
  const std::ofstream installer(path, std::ios::app);
  try {
    const os::Spawned started =
        os::spawn({.executable = path, .arguments = {path}, .environment = {}, .descriptors = {}});
    while (!os::has_ended(started.pidfd.get())) std::this_thread::yield();
    (void)os::reap(started.pidfd.get());
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.errno_value(), ETXTBSY);
    return false;
  }
}

TEST(Watch, StartsAProgramOnceItIsNoLongerWrittenTo) {
  const test::TemporaryDirectory directory;
  if (starts_while_written_to(directory)) GTEST_SKIP() << "this kernel knows no busy programs";
  CheckpointerConfig patient = config();
  patient.process_config.executable =
      program(directory, std::string("exec '") + CKPTRING_DRAIN_PATH + "' \"$@\"");
  patient.process_config.max_restarts = 1000;
  const FailedStarts failed;
  std::ofstream installer(patient.process_config.executable, std::ios::app);
  AsyncSave async(patient, {});
  EXPECT_TRUE(failed.wait_for(2));
  installer.close();
  EXPECT_NO_THROW(async.ready());
}

TEST(Watch, GivesUpWithTheCauseOnAShortageThatDoesNotPass) {
  CheckpointerConfig limited = config();
  limited.process_config.max_restarts = 2;
  const test::TemporaryDirectory directory;
  if (starts_while_written_to(directory)) GTEST_SKIP() << "this kernel knows no busy programs";
  limited.process_config.executable = program(directory, "exit 1");
  const std::ofstream installer(limited.process_config.executable, std::ios::app);
  AsyncSave async(limited, {});
  const std::string failure = failure_of(async);
  EXPECT_NE(failure.find("could not be started"), std::string::npos) << failure;
  EXPECT_NE(failure.find("Text file busy"), std::string::npos) << failure;
  EXPECT_NE(failure.find("after 2 restarts"), std::string::npos) << failure;
}

TEST(Watch, PausesLongerEachTimeAProcessDiesInVain) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig failing = config();
  failing.process_config.executable =
      program(directory, "read uptime idle < /proc/uptime; echo $uptime >> '" +
                             directory / "starts" + "'; exit 1");
  AsyncSave async(failing, {});
  EXPECT_NE(failure_of(async).find("after 5 restarts"), std::string::npos);
  std::vector<double> starts;
  std::ifstream in(directory / "starts");
  for (double uptime = 0; in >> uptime;) starts.push_back(uptime);
  ASSERT_EQ(starts.size(), 6u);
  // 0, 0.01, 0.05, 0.25 and 1 s, told in hundredths.
  EXPECT_GE(starts[4] - starts[3], 0.24);
  EXPECT_GE(starts[5] - starts[4], 0.99);
}

TEST(Watch, GivesUpAtOnceOnAProgramOfAnotherVersion) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig other = config();
  other.process_config.executable = program(
      directory, std::string("exec '") + CKPTRING_DRAIN_PATH + "' --ckptring-protocol=999 \"$2\"");
  AsyncSave async(other, {});
  const std::string failure = failure_of(async);
  EXPECT_NE(failure.find("version"), std::string::npos) << failure;
  EXPECT_NE(failure.find("999"), std::string::npos) << failure;
}

TEST(Watch, ReportsAProgramThatMayNotBeExecuted) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig plain = config();
  plain.process_config.executable = directory / "text";
  std::ofstream(directory / "text") << "no program";
  AsyncSave async(plain, {});
  EXPECT_NE(failure_of(async).find("Permission denied"), std::string::npos);
}

TEST(Watch, LeavesTheProcessDeafToWhatEndsTrainers) {
  const test::TemporaryDirectory directory;
  AsyncSave async(config(), {});
  async.ready();
  const int process = async.process_id();
  for (const int signal : {SIGINT, SIGHUP, SIGTERM, SIGQUIT, SIGPIPE, SIGXFSZ}) {
    ASSERT_EQ(::kill(process, signal), 0);
  }
  EXPECT_NO_THROW(async.submit(job_for(directory / "run", noise({2'000'000}, 3))).written.get());
  EXPECT_EQ(async.process_id(), process);
  EXPECT_NE(::getsid(process), ::getsid(0)) << "a session of its own";
  EXPECT_NE(::getpgid(process), ::getpgid(0));
}

TEST(Watch, GivesTheProcessOnlyTheDescriptorsThatItNeeds) {
  AsyncSave async(config(), {});
  async.ready();
  const std::string folder = "/proc/" + std::to_string(async.process_id()) + "/fd";
  std::map<int, std::string> seen;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    seen[std::stoi(entry.path().filename())] = std::filesystem::read_symlink(entry.path());
  }
  // A pipe's name ends with its number.
  seen[drain::kLogPipe].resize(std::min(seen[drain::kLogPipe].size(), std::strlen("pipe:")));
  const std::map<int, std::string> expected{{drain::kNullInput, "/dev/null"},
                                            {drain::kNullOutput, "/dev/null"},
                                            {drain::kLogPipe, "pipe:"},
                                            {drain::kRing, "/memfd:ckptring (deleted)"},
                                            {drain::kTrainer, "anon_inode:[pidfd]"},
                                            {drain::kDataBell, "anon_inode:[eventfd]"},
                                            {drain::kSpaceBell, "anon_inode:[eventfd]"},
                                            {drain::kResultBell, "anon_inode:[eventfd]"}};
  EXPECT_EQ(seen, expected);
}

constexpr int kNoOtherUser = 100;
/// What another user may do to a process and its shared memory: numbered, 0 for nothing.
/// kNoOtherUser if there is none.
int reach_of_another_user(pid_t process) {
  if (::setgid(65534) != 0 || ::setuid(65534) != 0) return kNoOtherUser;
  const std::string folder = "/proc/" + std::to_string(process) + "/";
  const std::string ring = folder + "fd/" + std::to_string(drain::kRing);
  int number = 0;
  for (const std::string& file : {folder + "mem", folder + "environ", folder + "maps", ring}) {
    ++number;
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    char byte = 0;
    if (fd >= 0 && ::read(fd, &byte, 1) >= 0) return number;
  }
  for (const char* const list : {"fd", "map_files"}) {
    ++number;
    if (::access((folder + list).c_str(), R_OK) == 0) return number;
  }
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, process, 0));
  if (pidfd >= 0 && ::syscall(SYS_pidfd_getfd, pidfd, drain::kRing, 0) >= 0) return ++number;
  if (::ptrace(PTRACE_ATTACH, process, nullptr, nullptr) == 0) return number + 2;
  return ::kill(process, SIGKILL) == 0 ? number + 3 : 0;
}

TEST(Watch, KeepsOtherUsersFromTheProcessAndItsMemory) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const test::TemporaryDirectory directory;
  AsyncSave async(config(), {});
  async.submit(job_for(directory / "run", noise({1000}, 1))).written.get();
  const int process = async.process_id();
  const pid_t other = ::fork();
  ASSERT_GE(other, 0);
  if (other == 0) ::_exit(reach_of_another_user(process));
  int status = 0;
  ASSERT_EQ(::waitpid(other, &status, 0), other);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNoOtherUser) GTEST_SKIP() << "this user namespace has no other user";
  EXPECT_EQ(WEXITSTATUS(status), 0);

  struct ::stat ring {};
  ASSERT_EQ(
      ::stat(("/proc/" + std::to_string(process) + "/fd/" + std::to_string(drain::kRing)).c_str(),
             &ring),
      0);
  EXPECT_EQ(ring.st_mode & 07777u, 0600u);
}

/// Its environment, entry by entry.
std::set<std::string> environment_of(int process) {
  std::istringstream entries(test::contents_of("/proc/" + std::to_string(process) + "/environ"));
  std::set<std::string> found;
  for (std::string entry; std::getline(entries, entry, '\0');) found.insert(entry);
  return found;
}

TEST(Watch, GivesAProgramThatIsNamedTheEnvironmentWithoutPreloadedLibraries) {
  ASSERT_EQ(::setenv("CKPTRING_TEST_CREDENTIALS", "secret", 1), 0);
  ASSERT_EQ(::setenv("LD_PRELOAD", "", 1), 0);
  AsyncSave async(config(), {});
  async.ready();
  ASSERT_EQ(::unsetenv("LD_PRELOAD"), 0);
  const std::set<std::string> seen = environment_of(async.process_id());
  EXPECT_TRUE(seen.contains("CKPTRING_TEST_CREDENTIALS=secret"));
  for (const std::string& entry : seen) EXPECT_FALSE(entry.starts_with("LD_PRELOAD")) << entry;
}

/// The file that a process runs, as it is now called.
std::string program_of(int process) {
  return std::filesystem::read_symlink("/proc/" + std::to_string(process) + "/exe");
}

TEST(Watch, StartsTheProgramAgainThatHasWorkedAlsoIfAnotherOneWasInstalledMeanwhile) {
  const test::TemporaryDirectory directory;
  const test::LogLines quiet;
  CheckpointerConfig automatic = config();
  automatic.process_config.executable = directory / "helper";
  automatic.process_config.ring_bytes = 0;
  std::filesystem::copy_file(CKPTRING_DRAIN_PATH, directory / "helper");
  AsyncSave async(automatic, {});
  async.ready();
  const int first = async.process_id();
  std::filesystem::rename(program(directory, "echo too new >&2; exit 1"), directory / "helper");
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  EXPECT_NO_THROW(async.submit(job_for(directory / "run", noise({1000}, 1))).written.get());
  const int second = async.process_id();
  EXPECT_NE(second, first);
  EXPECT_EQ(program_of(second), directory / "helper (deleted)");
  // For a larger ring, too.
  EXPECT_NO_THROW(async.submit(job_for(directory / "run", noise({2'000'000}, 1))).written.get());
  EXPECT_NE(async.process_id(), second);
  EXPECT_EQ(program_of(async.process_id()), directory / "helper (deleted)");
}

TEST(Watch, GivesTheProcessNoWayToMoreRights) {
  AsyncSave async(config(), {});
  async.ready();
  const std::string folder = "/proc/" + std::to_string(async.process_id());
  async.submit(job_for(test::TemporaryDirectory() / "run", noise({1000}, 1))).written.wait();
  EXPECT_NE(test::contents_of(folder + "/status").find("NoNewPrivs:\t1"), std::string::npos);
}

TEST(Watch, MayGiveTheProcessUpWhileCloseDoesSo) {
  const test::TemporaryDirectory directory;
  const test::LogLines quiet;
  CheckpointerConfig impatient = config();
  impatient.process_config.ring_bytes = 4 << 20;  // all of the save fits
  impatient.process_config.subprocess_shutdown_timeout_secs = 0.1;
  for (int i = 0; i < 25; ++i) {
    impatient.process_config.stall_timeout_secs = 0.15 + 0.005 * i;  // close() looks after 0.2
    AsyncSave async(impatient, {});
    async.ready();
    const int process = async.process_id();
    ASSERT_EQ(::kill(process, SIGSTOP), 0);
    const SaveHandle save = async.submit(job_for(directory / "run", noise({2'000'000}, 1)));
    save.staged.wait();  // on a busy machine the stall may come before that
    async.close();
    try {
      save.written.get();
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::stalled || error.code() == ErrorCode::outcome_unknown)
          << error.what();
      // It was left to a process that goes on once it may: not after this test.
      if (error.code() == ErrorCode::outcome_unknown) (void)::kill(process, SIGKILL);
    }
  }
}

TEST(Watch, LeavesWhatIsStagedToAProcessAlsoIfNoneRunsJustThen) {
  const test::TemporaryDirectory directory;
  const test::LogLines log;
  const std::string broken = directory / "broken";
  CheckpointerConfig failing = config();
  failing.process_config.executable =
      program(directory, "test -e " + broken + " && exit 1; exec " CKPTRING_DRAIN_PATH " \"$@\"");
  failing.process_config.ring_bytes = 4 << 20;  // all of the save fits
  failing.process_config.max_restarts = 1000;
  {
    AsyncSave async(failing, {});
    async.ready();
    ASSERT_EQ(::kill(async.process_id(), SIGSTOP), 0);
    async.submit(job_for(directory / "run", noise({2'000'000}, 1))).staged.get();
    std::ofstream(broken).close();
    ASSERT_EQ(::kill(async.process_id(), SIGKILL), 0);
    // By then it is started again only after a pause of one second.
    while (log.with("starting it again").size() < 6) std::this_thread::yield();
    std::filesystem::remove(broken);
  }
  for (int i = 0; i < 3000 && !std::filesystem::exists(directory / "run/checkpoint_0.pt"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(std::filesystem::exists(directory / "run/checkpoint_0.pt"));
}

TEST(Watch, OutlivesWhateverIsThrownInItsThread) {
  const test::LogLines log;
  const ring::Segment segment = ring::Segment::create({64 << 10, 4, 2, 1 << 20}, {});
  const ring::BellSet bells;
  const ring::Producer producer(segment.view(), bells.bells());
  CheckpointerConfig missing = config();
  missing.process_config.executable = "/nowhere";
  supervise::DrainProgram program(missing.process_config.executable);
  supervise::CheckpointProcess process(
      missing.process_config, program, {}, segment, bells, producer,
      [](std::uint64_t, const supervise::SaveOutcome&) { throw std::bad_alloc(); });
  process.expect(1);
  process.expect(2);
  EXPECT_THROW(process.ready(), Error);
  while (log.with("cannot be watched").empty()) std::this_thread::yield();
}

TEST(Watch, EndsTheProcessWithTheCheckpointer) {
  int process = 0;
  {
    AsyncSave async(config(), {});
    async.ready();
    process = async.process_id();
    async.close();
  }
  EXPECT_EQ(os::process_state(process), 0) << "still there, or a zombie";
}

}  // namespace
}  // namespace ckptring::save
