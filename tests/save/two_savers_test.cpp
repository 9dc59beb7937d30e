// Two processes that save to the same names in turn, and one that only looks as if.
#include "save/async_save.h"
#include "save/sync_save.h"
#include "support/log_lines.h"
#include "support/own_mounts.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <ckptring/writer.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ckptring::save {
namespace {

using test::job_for;
using test::LogLines;
using test::noise;

constexpr const char* kReplaced = "which this process has saved: is another process saving there";

/// Either path, behind one interface.
class Saver {
 public:
  explicit Saver(bool async, RankInfo rank = {}) : rank_(rank) {
    if (async) {
      CheckpointerConfig config;
      config.max_saves_in_flight = 2;
      config.process_config.executable = CKPTRING_DRAIN_PATH;
      config.process_config.subprocess_shutdown_timeout_secs = 1;
      async_ = std::make_unique<AsyncSave>(config, rank);
    } else {
      sync_ = std::make_unique<SyncSave>(CheckpointWriterConfig{}, rank, WriterSetup{});
    }
  }
  SaveReport save(const std::string& path, unsigned seed = 1) {
    SaveJob job = job_for(path, noise({20'000}, seed), rank_);
    return async_ ? async_->submit(std::move(job)).written.get() : sync_->run(std::move(job));
  }
  /// Saves of which the second is staged, if it can be, before the first is written.
  std::array<std::future<SaveReport>, 2> begin_two(const std::string& path) {
    std::array<std::future<SaveReport>, 2> reports;
    if (!async_) {
      auto both = std::async([this, path] { return std::array{save(path), save(path)}; }).share();
      for (std::size_t i = 0; i < 2; ++i) {
        reports.at(i) = std::async(std::launch::deferred, [both, i] { return both.get().at(i); });
      }
      return reports;
    }
    for (auto& report : reports) {
      SaveHandle handle = async_->submit(job_for(path, noise({20'000}, 1), rank_));
      handle.staged.get();
      report = std::async(std::launch::deferred, [=] { return handle.written.get(); });
    }
    return reports;
  }
  void close() {
    if (async_) return async_->close();
    sync_->close();
  }

 private:
  RankInfo rank_;
  std::unique_ptr<AsyncSave> async_;
  std::unique_ptr<SyncSave> sync_;
};

/// Stops a save at one point of its commit.
class Gate final : public WriterHook {
 public:
  enum class At { before, after };
  explicit Gate(At at) : at_(at) {
    for (auto& ends : {&reached_, &go_}) {
      if (::pipe2(ends->data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    }
  }
  ~Gate() override {
    for (const int end : {reached_[0], reached_[1], go_[0], go_[1]}) ::close(end);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void pre_commit(const CheckpointDescription&) override { pass(At::before); }
  void post_commit(const CheckpointDescription&) override { pass(At::after); }
  void wait_reached() const { take(reached_[0]); }
  void open() const { give(go_[1]); }

 private:
  void pass(At at) const {
    if (at != at_) return;
    give(reached_[1]);
    take(go_[0]);
  }
  static void give(int end) {
    if (::write(end, "x", 1) != 1) throw std::runtime_error("write");
  }
  static void take(int end) {
    char byte = 0;
    if (::read(end, &byte, 1) != 1) throw std::runtime_error("read");
  }

  At at_;
  std::array<int, 2> reached_{};
  std::array<int, 2> go_{};
};

/// As a writer's hook, which is owned: leads to a gate that is not.
struct ToGate final : WriterHook {
  explicit ToGate(Gate& to) : gate(to) {}
  void pre_commit(const CheckpointDescription& save) override { gate.pre_commit(save); }
  void post_commit(const CheckpointDescription& save) override { gate.post_commit(save); }
  Gate& gate;
};

SaveReport save_through(Gate& gate, const std::string& path) {
  WriterSetup setup;
  setup.hook = std::make_unique<ToGate>(gate);
  return SyncSave({}, {}, std::move(setup)).run(job_for(path, noise({20'000}, 7)));
}

/// Another process, until its body ends.
class AnotherProcess {
 public:
  explicit AnotherProcess(const std::function<void()>& body) : child_(::fork()) {
    if (child_ != 0) return;
    try {
      body();
      ::_exit(0);
    } catch (...) {
      ::_exit(1);
    }
  }
  void join() const {
    int status = -1;
    ASSERT_EQ(::waitpid(child_, &status, 0), child_);
    ASSERT_EQ(status, 0);
  }

 private:
  pid_t child_;
};

class TwoSavers : public ::testing::TestWithParam<bool> {
 protected:
  std::string step(int number) const { return directory_ / "step_" + std::to_string(number); }
  std::string file(int number) const { return step(number) + "/checkpoint_0.pt"; }
  /// Of the same job, started twice: it saves what this process has saved.
  void save_elsewhere(int number, RankInfo rank = {}) const {
    AnotherProcess([&] { (void)Saver(false, rank).save(step(number), 99); }).join();
  }

  test::TemporaryDirectory directory_;
  LogLines log_{LogLevel::warn};
  Saver saver_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Paths, TwoSavers, ::testing::Bool(),
                         [](const auto& path) { return path.param ? "Async" : "Sync"; });

TEST_P(TwoSavers, ThatTakeTurnsAreToldByTheNextSaveAndItsReport) {
  EXPECT_TRUE(saver_.save(step(1)).warnings.empty());
  save_elsewhere(1);
  const SaveReport report = saver_.save(step(2));
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_NE(report.warnings[0].find(file(1)), std::string::npos) << report.warnings[0];
  EXPECT_NE(report.warnings[0].find(kReplaced), std::string::npos) << report.warnings[0];
  EXPECT_EQ(log_.with(kReplaced).size(), 1u);
  EXPECT_TRUE(saver_.save(step(3)).warnings.empty()) << "told twice";
}

TEST_P(TwoSavers, OfOneNameAgainAndAgainAreToldToo) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(saver_.save(step(1)).warnings.size(), i == 0 ? 0u : 1u);
    save_elsewhere(1);
  }
}

TEST_P(TwoSavers, AreToldThoughOneOfThemLagsBehind) {
  for (int number = 0; number < 10; ++number) (void)saver_.save(step(number));
  save_elsewhere(2);
  EXPECT_EQ(saver_.save(step(10)).warnings.size(), 1u);
}

TEST_P(TwoSavers, AreToldAtTheEndIfThereIsNoNextSave) {
  (void)saver_.save(step(1));
  save_elsewhere(1);
  saver_.close();
  EXPECT_EQ(log_.with(kReplaced).size(), 1u);
  {
    Saver unclosed(GetParam());
    (void)unclosed.save(step(2));
    save_elsewhere(2);
  }
  EXPECT_EQ(log_.with(kReplaced).size(), 2u);
}

/// Where each save is staged before the one before it is written, there is no moment at which what
/// lies under the name could be looked at from outside.
TEST_P(TwoSavers, OfOneNameAreToldByTheSaveThatReplacesTheOthersFile) {
  (void)saver_.save(step(1));
  Gate gate(Gate::At::before);
  const AnotherProcess other([&] { (void)save_through(gate, step(1)); });
  gate.wait_reached();
  auto reports = saver_.begin_two(step(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(GetParam() ? 0 : 100));  // begins
  gate.open();
  const SaveReport first = reports[0].get();
  ASSERT_EQ(first.warnings.size(), 1u);
  EXPECT_NE(first.warnings[0].find(kReplaced), std::string::npos) << first.warnings[0];
  EXPECT_EQ(reports[1].get().warnings.size(), 0u) << "told twice";
  EXPECT_EQ(log_.with(kReplaced).size(), 1u);
  other.join();
}

TEST_P(TwoSavers, OfOneProcessAreNotMistakenForTwo) {
  Saver other(!GetParam());
  for (unsigned i = 0; i < 4; ++i) {
    EXPECT_TRUE(saver_.save(step(1), i).warnings.empty());
    EXPECT_TRUE(other.save(step(1), i).warnings.empty());
  }
  std::filesystem::create_directory_symlink(step(1), directory_ / "another name");
  (void)saver_.save(step(1));
  (void)other.save(directory_ / "another name");
  EXPECT_TRUE(saver_.save(step(2)).warnings.empty());
  other.close();
  EXPECT_TRUE(saver_.save(step(3)).warnings.empty());
  saver_.close();
  EXPECT_TRUE(log_.with(kReplaced).empty());
}

TEST_P(TwoSavers, OfOneProcessThatOverlapAreNotMistakenForTwo) {
  (void)saver_.save(step(1));
  Gate gate(Gate::At::after);
  auto other = std::async([&] { return save_through(gate, step(1)); });
  gate.wait_reached();
  EXPECT_TRUE(saver_.save(step(1)).warnings.empty());
  gate.open();
  EXPECT_TRUE(other.get().warnings.empty()) << "it ends after the one that replaced it";
  for (const int next : {2, 1}) EXPECT_TRUE(saver_.save(step(next)).warnings.empty());
  saver_.close();
  EXPECT_TRUE(log_.with(kReplaced).empty());
}

TEST_P(TwoSavers, OfTwoRanksInOneProcessAreToldOfTheirOwnFiles) {
  const RankInfo first{0, 2};
  const RankInfo second{1, 2};
  Saver savers[] = {Saver(GetParam(), first), Saver(GetParam(), second)};
  for (int number = 0; number < 10; ++number) {
    for (Saver& saver : savers) (void)saver.save(step(number));
  }
  save_elsewhere(0, first);
  EXPECT_TRUE(savers[1].save(step(10)).warnings.empty());
  const SaveReport report = savers[0].save(step(10));
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_NE(report.warnings[0].find("as rank 0 too?"), std::string::npos) << report.warnings[0];
  save_elsewhere(5, second);
  for (Saver& saver : savers) saver.close();
  const auto lines = log_.with(kReplaced);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_NE(lines[1].text.find("as rank 1 too?"), std::string::npos) << lines[1].text;
}

TEST_P(TwoSavers, AreNotToldOfFilesOfACheckpointerThatHasEnded) {
  (void)Saver(GetParam()).save(step(1));
  save_elsewhere(1);
  EXPECT_TRUE(saver_.save(step(2)).warnings.empty());
  EXPECT_TRUE(saver_.save(step(1)).warnings.empty());
  EXPECT_TRUE(log_.with(kReplaced).empty());
}

TEST_P(TwoSavers, AreNotSeenInALinkToWhereAFileWasMoved) {
  (void)saver_.save(step(1));
  std::filesystem::rename(file(1), directory_ / "archived");
  std::filesystem::create_symlink(directory_ / "archived", file(1));
  for (const int next : {2, 3, 1}) EXPECT_TRUE(saver_.save(step(next)).warnings.empty());
}

TEST_P(TwoSavers, AreNotSeenInAFileThatWasRemovedOrMovedOrCopiedWithItsTime) {
  for (int number = 1; number <= 4; ++number) (void)saver_.save(step(number));
  std::filesystem::remove(file(1));
  std::filesystem::rename(step(2), directory_ / "best");
  const auto time = std::filesystem::last_write_time(file(3));
  std::filesystem::copy_file(file(3), directory_ / "copy");
  std::filesystem::last_write_time(directory_ / "copy", time);
  std::filesystem::rename(directory_ / "copy", file(3));
  std::filesystem::last_write_time(file(4), time + std::chrono::hours(1));
  EXPECT_TRUE(saver_.save(step(5)).warnings.empty());
}

TEST_P(TwoSavers, AreNotSeenByAProcessThatResumesWhereAnotherOneEnded) {
  save_elsewhere(1);
  save_elsewhere(2);
  EXPECT_TRUE(saver_.save(step(2)).warnings.empty());
  EXPECT_TRUE(saver_.save(step(1)).warnings.empty());
}

TEST_P(TwoSavers, AreSeenByNoForkedChild) {
  (void)saver_.save(step(1), 1);
  (void)saver_.save(step(2), 1);
  std::array<int, 2> go{};
  ASSERT_EQ(::pipe(go.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    if (::read(go[0], &byte, 1) != 1) ::_exit(2);
    ::_exit(Saver(false).save(directory_ / "of the child").warnings.empty() ? 0 : 1);
  }
  EXPECT_TRUE(saver_.save(step(1), 2).warnings.empty());
  ASSERT_EQ(::write(go[1], "x", 1), 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (const int end : go) ::close(end);
}

// ---- an older file's file system hangs

/// Until this process ends, whoever looks there waits: a server that never answers.
void hang(const std::string& directory) {
  const int server = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (server < 0) throw test::Refused("/dev/fuse", errno);
  const std::string options =
      "fd=" + std::to_string(server) + ",rootmode=40000,user_id=0,group_id=0";
  if (::mount("hangs", directory.c_str(), "fuse", 0, options.c_str()) != 0) {
    throw test::Refused("a FUSE file system", errno);
  }
}

/// Whether it ends in time. If not, it is left alone.
bool ends_within(std::chrono::seconds limit, std::function<void()> work) {
  std::packaged_task<void()> task(std::move(work));
  std::future<void> done = task.get_future();
  std::thread(std::move(task)).detach();
  if (done.wait_for(limit) != std::future_status::ready) return false;
  done.get();
  return true;
}

class OneSaver : public ::testing::TestWithParam<bool> {
 protected:
  /// Runs `body` with a checkpointer that has saved to a file system which hangs since.
  /// @return what it said
  std::string where_an_older_name_hangs(
      const std::function<std::string(std::unique_ptr<Saver>&)>& body) const {
    const test::InOwnMounts said = test::in_own_mounts([&]() -> std::string {
      const std::string other = directory_ / "other";
      std::filesystem::create_directory(other);
      if (::mount("other", other.c_str(), "tmpfs", 0, nullptr) != 0) {
        throw test::Refused("a tmpfs", errno);
      }
      // Never destroyed where it hangs.
      auto& saver = *new std::unique_ptr<Saver>(std::make_unique<Saver>(GetParam()));
      (void)saver->save(other + "/run");
      hang(other);
      return body(saver);
    });
    return said.refused.empty() ? said.failure : kSkip + said.refused;
  }
  static inline const std::string kSkip = "skip: ";

  test::TemporaryDirectory directory_;
};

INSTANTIATE_TEST_SUITE_P(Paths, OneSaver, ::testing::Bool(),
                         [](const auto& path) { return path.param ? "Async" : "Sync"; });

TEST_P(OneSaver, SavesToAHealthyDirectoryWhileAnotherOneHangs) {
  const std::string said = where_an_older_name_hangs([&](std::unique_ptr<Saver>& saver) {
    const bool saved = ends_within(std::chrono::seconds(10), [&] {
      (void)saver->save(directory_ / "healthy");
      (void)saver->save(directory_ / "healthy");
    });
    return saved ? "" : "the save did not end";
  });
  if (said.starts_with(kSkip)) GTEST_SKIP() << said;
  EXPECT_EQ(said, "");
}

TEST_P(OneSaver, EndsThoughADirectoryHangsAndIsToldOfTheOthers) {
  for (const bool closes : {true, false}) {
    const std::string said = where_an_older_name_hangs([&](std::unique_ptr<Saver>& saver) {
      const test::LogLines log(LogLevel::warn);
      const bool ended = ends_within(std::chrono::seconds(10), [&] {
        (void)saver->save(directory_ / "healthy");
        AnotherProcess([&] { (void)Saver(false).save(directory_ / "healthy", 99); }).join();
        if (closes) return saver->close();
        saver.reset();
      });
      if (!ended) return "it did not end";
      return log.with(kReplaced).size() == 1 ? "" : "not told";
    });
    if (said.starts_with(kSkip)) GTEST_SKIP() << said;
    EXPECT_EQ(said, "") << (closes ? "close" : "destructor");
  }
}

/// What a checkpointer leaves to its process is committed when nobody watches, or gives way: then
/// the newest save is the one that stays.
TEST(OneProcess, IsNotMistakenForTwoWhereItsCheckpointerEndsBeforeTheSave) {
  const test::TemporaryDirectory directory;
  const LogLines log(LogLevel::warn);
  const std::string run = directory / "run";
  (void)Saver(false).save(run, 1);
  for (unsigned i = 0; i < 5; ++i) {
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    const Future<void> staged = [&] {
      AsyncSave ends(config, {});
      return ends.submit(job_for(run, noise({3'000'000}, i))).staged;
    }();
    staged.get();
    const SaveReport newest = Saver(i % 2 == 0).save(run, 100 + i);
    EXPECT_TRUE(newest.warnings.empty());
    const std::string file = test::contents_of(newest.path);
    EXPECT_TRUE(Saver(i % 2 == 1).save(directory / "other").warnings.empty());
    EXPECT_TRUE(test::contents_of(newest.path) == file) << "an older save has replaced it";
  }
  EXPECT_TRUE(log.with(kReplaced).empty());
}

}  // namespace
}  // namespace ckptring::save
