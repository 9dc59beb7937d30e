// Trainers whose process environment is not the usual one. Each keeps to its own test, and says
// what was not as promised.
//
//   odd_trainer HELPER DIRECTORY MODE
//
// Exit status 0: all as promised; 77: this machine does not allow to try.
#include "os/affinity.h"
#include "os/read_file.h"
#include "plan/pt_archive.h"
#include "save/async_save.h"
#include "save/sync_save.h"
#include "store/file_source.h"
#include "support/sample_save.h"

#include <ckptring/checkpoints.h>
#include <ckptring/error.h>
#include <ckptring/log.h>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <clocale>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;
using ckptring::CheckpointerConfig;
using ckptring::Error;
using ckptring::ErrorCode;
using ckptring::SaveHandle;
using ckptring::WriteMode;
using ckptring::os::Processors;
using ckptring::save::AsyncSave;
using ckptring::save::SaveJob;
using ckptring::save::SyncSave;

constexpr int kNotHere = 77;
constexpr std::uint64_t kBytes = 1'500'000;
constexpr uid_t kNobody = 65534;

/// Not standard output or error, which may be closed.
int told = STDERR_FILENO;

void tell(const std::string& what) {
  const std::string line = what + "\n";
  if (::write(told, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::_Exit(4);
}

[[noreturn]] void wait_for_the_end() {
  for (;;) ::pause();
}

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

void expect(bool holds, const std::string& what) {
  if (!holds) fail("not as promised: " + what);
}

/// The error that `action` throws.
template <class Action>
Error error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  fail("no error");
}

class OddTrainer {
 public:
  OddTrainer(std::string helper, std::string directory)
      : helper_(std::move(helper)), directory_(std::move(directory)) {}

  [[nodiscard]] CheckpointerConfig config() const {
    CheckpointerConfig config;
    config.process_config.executable = helper_;
    config.process_config.block_bytes = 64 << 10;
    config.process_config.ring_bytes = 8 * (64 << 10);
    return config;
  }
  [[nodiscard]] std::string path_of(int step) const {
    return directory_ + "/step_" + std::to_string(step);
  }
  [[nodiscard]] SaveJob job(int step, std::uint64_t bytes = kBytes) const {
    return ckptring::test::job_for(
        path_of(step), ckptring::test::noise({bytes}, static_cast<std::uint64_t>(step)), {}, step);
  }

  // ------------------------------------------------------------------ closed descriptors

  /// Prints all the time to the standard descriptors that are closed.
  class Printer {
   public:
    Printer()
        : thread_([this] {
            while (!stop_) {
              for (const int fd : {0, 1, 2}) {
                if (::write(fd, "epoch 3: loss 0.1234\n", 21) >= 0) ++printed_;
              }
            }
          }) {}
    ~Printer() {
      stop_ = true;
      thread_.join();
    }
    Printer(const Printer&) = delete;
    Printer& operator=(const Printer&) = delete;
    [[nodiscard]] int printed() const { return printed_; }

   private:
    std::atomic<bool> stop_{false};
    std::atomic<int> printed_{0};
    std::thread thread_;
  };

  static void close_standard_descriptors() {
    told = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    for (const int fd : {0, 1, 2}) (void)::close(fd);
  }
  static void expect_standard_descriptors_closed() {
    for (const int fd : {0, 1, 2}) {
      expect(::fcntl(fd, F_GETFD) < 0, fmt::format("descriptor {} is closed", fd));
    }
  }

  void closed_async() const {
    close_standard_descriptors();
    const Printer printer;
    {
      AsyncSave async(config(), {});
      for (int step = 1; step <= 6; ++step) {
        if (step == 4) (void)::kill(async.process_id(), SIGKILL);
        (void)async.submit(job(step)).written.get();
        expect_standard_descriptors_closed();
      }
      CheckpointerConfig automatic = config();
      automatic.process_config.ring_bytes = 0;
      AsyncSave growing(automatic, {});
      for (int step = 7; step <= 9; ++step) {
        (void)growing.submit(job(step, kBytes * static_cast<unsigned>(step))).written.get();
      }
    }
    expect(printer.printed() == 0, "nothing that is printed goes anywhere");
  }

  void closed_sync() const {
    close_standard_descriptors();
    const Printer printer;
    int step = 0;
    for (const WriteMode mode : {WriteMode::automatic, WriteMode::buffered}) {
      ckptring::CheckpointWriterConfig writer;
      writer.mode = mode;
      SyncSave sync(writer, {}, {});
      for (int i = 0; i < 10; ++i) (void)sync.run(job(++step));
    }
    expect_standard_descriptors_closed();
    const auto newest = ckptring::latest(directory_);
    expect(newest && newest->step == step, "the newest one is found");
    expect(ckptring::clean(directory_, 0).removed.empty(), "nothing is left over");
    const auto source = ckptring::store::open_file_source(path_of(step) + "/checkpoint_0.pt");
    expect(source->fd() > STDERR_FILENO, "what is read is above the standard descriptors");
    (void)ckptring::plan::PtArchive::open(*source);
    expect(printer.printed() == 0, "nothing that is printed goes anywhere");
  }

  // ------------------------------------------------------------------ the environment

  /// From now on whoever reads the environment is killed.
  static void forbid_environment() {
    void* const page = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) fail("mmap");
    environ = static_cast<char**>(page);
  }

  void environment() const {
    // Not the plain "C", in which nothing is translated.
    if (std::setlocale(LC_ALL, "C.UTF-8") == nullptr) fail("setlocale");
    (void)::setenv("CKPTRING_TEST_VARIABLE", "as it was", 1);
    CheckpointerConfig automatic = config();
    automatic.process_config.ring_bytes = 0;
    AsyncSave async(automatic, {});
    CheckpointerConfig missing = config();
    missing.process_config.executable = "/nowhere/ckptring-drain";
    AsyncSave without(missing, {});
    forbid_environment();
    for (int step = 1; step <= 4; ++step) {
      // Each larger than the one before: a ring of its own.
      (void)async.submit(job(step, kBytes * static_cast<unsigned>(step))).written.get();
      (void)::kill(async.process_id(), SIGKILL);
    }
    (void)async.submit(job(5)).written.get();
    const std::string seen =
        ckptring::os::read_file(fmt::format("/proc/{}/environ", async.process_id())).value_or("");
    expect(seen.find("CKPTRING_TEST_VARIABLE=as it was") != std::string::npos,
           "the helper has the environment of the start");
    (void)error_of([&] { without.ready(); });
    (void)error_of([&] { (void)async.submit(unwritable()).written.get(); });
    async.close();
  }
  [[nodiscard]] SaveJob unwritable() const {
    SaveJob job_in_vain = job(6);
    job_in_vain.path = path_of(1) + "/checkpoint_0.pt/below";
    return job_in_vain;
  }

  // ------------------------------------------------------------------ exec

  [[noreturn]] static void become_another_program() {
    (void)::execl("/bin/sleep", "sleep", "1000", nullptr);
    fail("exec");
  }
  void exec_idle() const {
    AsyncSave async(config(), {});
    (void)async.submit(job(1)).written.get();
    tell(fmt::format("helper {}", async.process_id()));
    become_another_program();
  }
  void exec_while_starting() const {
    const AsyncSave async(config(), {});
    while (async.process_id() == 0) std::this_thread::yield();
    tell(fmt::format("helper {}", async.process_id()));
    become_another_program();
  }
  void exec_while_staging() const {
    AsyncSave async(config(), {});
    async.ready();
    SaveJob next = job(1);
    std::promise<void> unsealed;
    next.check_unchanged = [&](int, const ckptring::save::Captured&) {
      unsealed.set_value();
      wait_for_the_end();
    };
    (void)async.submit(std::move(next));
    unsealed.get_future().wait();
    tell(fmt::format("helper {}", async.process_id()));
    become_another_program();
  }
  void exec_once_staged() const {
    CheckpointerConfig roomy = config();
    roomy.process_config.ring_bytes = 4 << 20;
    AsyncSave async(roomy, {});
    async.submit(job(1)).staged.get();
    tell(fmt::format("helper {}", async.process_id()));
    become_another_program();
  }

  // ------------------------------------------------------------------ credentials

  static void require_root() {
    if (::geteuid() != 0) std::_Exit(kNotHere);
  }
  static void become_nobody() {
    if (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) {
      std::_Exit(kNotHere);
    }
  }
  void dropped_root() const {
    require_root();
    const std::string mine = path_of(0);
    const std::string theirs = path_of(1);
    if (::mkdir(mine.c_str(), 0755) != 0 || ::mkdir(theirs.c_str(), 0755) != 0 ||
        ::chown(theirs.c_str(), kNobody, kNobody) != 0) {
      fail("mkdir");
    }
    AsyncSave async(config(), {});
    async.ready();
    const int first = async.process_id();
    become_nobody();
    const Error refused = error_of([&] { (void)async.submit(job(0)).written.get(); });
    expect(refused.code() == ErrorCode::permission, refused.what());
    expect(fs::is_empty(mine), "nothing is written into root's directory");
    const std::string file = async.submit(job(1)).written.get().path;
    struct ::stat status {};
    expect(::stat(file.c_str(), &status) == 0 && status.st_uid == kNobody,
           "the file belongs to who saved it");
    expect(async.process_id() != first, "another helper wrote it");
    // The first one has ended by itself: nobody else may end it.
    while (::kill(first, 0) == 0 || errno == EPERM) std::this_thread::yield();
  }
  void groups_changed() const {
    require_root();
    AsyncSave async(config(), {});
    (void)async.submit(job(1)).written.get();
    const int first = async.process_id();
    (void)async.submit(job(2)).written.get();
    expect(async.process_id() == first, "one helper for all as long as nothing changes");
    const gid_t group = 12345;
    if (::setgroups(1, &group) != 0) std::_Exit(kNotHere);
    (void)async.submit(job(3)).written.get();
    const std::string status =
        ckptring::os::read_file(fmt::format("/proc/{}/status", async.process_id())).value_or("");
    expect(status.find("\nGroups:\t12345") != std::string::npos, "the helper has the new groups");
  }
  void one_thread_changed() const {
    require_root();
    AsyncSave async(config(), {});
    const auto refusal = [&](int step) {
      const Error error = error_of([&] { (void)async.submit(job(step)).written.get(); });
      expect(error.code() == ErrorCode::permission, error.what());
      return std::string(error.what());
    };
    std::thread([&] {
      // Beneath the C library, which would change all threads.
      if (::syscall(SYS_setresuid, -1, kNobody, -1) != 0) std::_Exit(kNotHere);
      const std::string words = refusal(1);
      expect(words.find("user 65534") != std::string::npos, words);
      expect(words.find("user 0") != std::string::npos, words);
    }).join();
    std::thread([&] {
      (void)::setfsuid(kNobody);
      const std::string words = refusal(2);
      expect(words.find("for files user 65534") != std::string::npos, words);
    }).join();
    std::thread([&] {
      // And with it all threads of this checkpointer.
      (void)::setfsuid(kNobody);
      AsyncSave odd(config(), {});
      const Error error = error_of([&] { (void)odd.submit(job(4)).written.get(); });
      expect(error.code() == ErrorCode::permission, error.what());
    }).join();
    expect(fs::is_empty(directory_), "nothing was written");
    (void)async.submit(job(3)).written.get();
  }
  void kill_refused() const {
    require_root();
    CheckpointerConfig impatient = config();
    impatient.process_config.stopped_timeout_secs = 0.3;
    AsyncSave async(impatient, {});
    async.ready();
    const int helper = async.process_id();
    const SaveHandle save = async.submit(job(1, 10 * kBytes));
    (void)::kill(helper, SIGSTOP);
    become_nobody();
    const Error error = error_of([&] { (void)save.written.get(); });
    tell(fmt::format("helper {}", helper));
    expect(error.code() == ErrorCode::stalled, error.what());
    expect(error.cause().find("cannot be killed: Operation not permitted") != std::string::npos,
           error.what());
    save.staged.wait();
    async.close();
  }

  // ------------------------------------------------------------------ signals and processors

  /// What /proc says of each thread of the library, and of the helper.
  static std::map<std::string, std::string> status_of_our_threads(int helper) {
    std::map<std::string, std::string> all;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) {
      const std::string status = ckptring::os::read_file(task.path() / "status").value_or("");
      if (status.starts_with("Name:\tckptring-")) {
        all.emplace(status.substr(6, status.find('\n') - 6) + task.path().filename().string(),
                    status);
      }
    }
    all.emplace("helper",
                ckptring::os::read_file(fmt::format("/proc/{}/status", helper)).value_or(""));
    return all;
  }
  static std::string value_of(const std::string& status, const std::string& key) {
    const auto at = status.find("\n" + key + ":\t");
    if (at == std::string::npos) return "";
    const auto begin = at + key.size() + 3;
    return status.substr(begin, status.find('\n', begin) - begin);
  }

  void waits_for_signals() const {
    AsyncSave async(config(), {});
    (void)async.submit(job(1)).written.get();
    for (const auto& [name, status] : status_of_our_threads(async.process_id())) {
      if (name == "helper") continue;
      const std::uint64_t blocked = std::stoull(value_of(status, "SigBlk"), nullptr, 16);
      for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGCHLD, SIGALRM, SIGPROF}) {
        expect((blocked >> (signal - 1) & 1) == 1, fmt::format("{} blocks {}", name, signal));
      }
    }
    // As the program's own threads do from now on.
    ::sigset_t term;
    (void)::sigemptyset(&term);
    (void)::sigaddset(&term, SIGTERM);
    if (::pthread_sigmask(SIG_BLOCK, &term, nullptr) != 0) fail("pthread_sigmask");
    for (int i = 0; i < 20; ++i) {
      const SaveHandle save = async.submit(job(2));
      (void)::kill(::getpid(), SIGTERM);
      int got = 0;
      if (::sigwait(&term, &got) != 0) fail("sigwait");
      expect(got == SIGTERM, "the signal arrives where it is waited for");
      (void)save.written.get();
    }
  }

  void pinned() const {
    const Processors all = Processors::of_this_thread();
    if (all.count() < 2) std::_Exit(kNotHere);
    const std::string usual =
        value_of(ckptring::os::read_file("/proc/self/status").value_or(""), "Cpus_allowed_list");
    Processors one;
    for (unsigned processor = 0; one.count() == 0; ++processor) {
      if (all.has(processor)) one.add(processor);
    }
    one.use();
    CheckpointerConfig automatic = config();
    automatic.process_config.ring_bytes = 0;
    AsyncSave async(automatic, {});
    async.prepare(job(1, 20 * kBytes));
    async.ready();
    const auto status_of = status_of_our_threads(async.process_id());
    expect(status_of.size() > 2, "there are threads");
    for (const auto& [name, status] : status_of) {
      expect(value_of(status, "Cpus_allowed_list") == usual, name + " is not pinned");
    }
    expect(Processors::of_this_thread() == one, "the maker stays where it was");
  }

  // ------------------------------------------------------------------ small stacks

  void small_stacks() const {
    ::pthread_attr_t small;
    if (::pthread_attr_init(&small) != 0 || ::pthread_attr_setstacksize(&small, 128 << 10) != 0 ||
        ::pthread_setattr_default_np(&small) != 0) {
      fail("make the stacks of new threads small");
    }
    (void)::pthread_attr_destroy(&small);
    std::thread([this] {
      AsyncSave async(config(), {});
      (void)async.submit(job(1)).written.get();
      (void)::kill(async.process_id(), SIGKILL);
      (void)async.submit(job(2)).written.get();
      (void)error_of([&] { (void)async.submit(unwritable()).written.get(); });
      for (const WriteMode mode : {WriteMode::automatic, WriteMode::buffered}) {
        ckptring::CheckpointWriterConfig writer;
        writer.mode = mode;
        (void)SyncSave(writer, {}, {}).run(job(3));
      }
      expect(ckptring::latest(directory_).has_value(), "the newest one is found");
      expect(ckptring::clean(directory_, 0).removed.empty(), "nothing is left over");
    }).join();
  }

  // ------------------------------------------------------------------ no more threads

  void threads_run_out() const {
    require_root();
    become_nobody();
    CheckpointerConfig automatic = config();
    automatic.process_config.ring_bytes = 0;
    AsyncSave async(automatic, {});
    async.ready();
    ::rlimit usual{};
    if (::getrlimit(RLIMIT_NPROC, &usual) != 0) fail("getrlimit");
    const ::rlimit none{0, usual.rlim_max};
    if (::setrlimit(RLIMIT_NPROC, &none) != 0) fail("setrlimit");
    const auto expect_words = [](const Error& error) {
      expect(error.code() == ErrorCode::out_of_memory, error.what());
      expect(std::string(error.what()).find("RLIMIT_NPROC") != std::string::npos, error.what());
    };
    expect_words(error_of([&] { const AsyncSave another(automatic, {}); }));
    // It needs a ring of its own, and a thread that watches its helper.
    expect_words(error_of([&] { (void)async.submit(job(1, 20 * kBytes)).written.get(); }));
    ckptring::CheckpointWriterConfig buffered;
    buffered.mode = WriteMode::buffered;
    SyncSave sync(buffered, {}, {});
    expect_words(error_of([&] { (void)sync.run(job(2)); }));
    if (::setrlimit(RLIMIT_NPROC, &usual) != 0) fail("setrlimit");
    (void)async.submit(job(1, 20 * kBytes)).written.get();
    (void)sync.run(job(2));
  }

 private:
  std::string helper_;
  std::string directory_;
};

using Mode = void (OddTrainer::*)() const;
const std::map<std::string_view, Mode> kModes = {
    {"closed-async", &OddTrainer::closed_async},
    {"closed-sync", &OddTrainer::closed_sync},
    {"environment", &OddTrainer::environment},
    {"exec-idle", &OddTrainer::exec_idle},
    {"exec-while-starting", &OddTrainer::exec_while_starting},
    {"exec-while-staging", &OddTrainer::exec_while_staging},
    {"exec-once-staged", &OddTrainer::exec_once_staged},
    {"dropped-root", &OddTrainer::dropped_root},
    {"groups-changed", &OddTrainer::groups_changed},
    {"one-thread-changed", &OddTrainer::one_thread_changed},
    {"kill-refused", &OddTrainer::kill_refused},
    {"waits-for-signals", &OddTrainer::waits_for_signals},
    {"pinned", &OddTrainer::pinned},
    {"small-stacks", &OddTrainer::small_stacks},
    {"threads-run-out", &OddTrainer::threads_run_out},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 64;
  const auto mode = kModes.find(argv[3]);
  if (mode == kModes.end()) return 64;
  try {
    ckptring::set_log_level(ckptring::LogLevel::off);
    const OddTrainer trainer(argv[1], argv[2]);
    (trainer.*mode->second)();
    return 0;
  } catch (const std::exception& error) {
    tell(error.what());
    return 1;
  }
}
