// Custom writers and hooks run in a helper program of the user's own.
#include "save/async_save.h"
#include "save/sync_save.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

namespace ckptring::save {
namespace {

using test::contents_of;
using test::job_for;
using test::noise;

class CustomWriter : public ::testing::Test {
 public:
  ~CustomWriter() override {
    ::unsetenv("CUSTOM_DRAIN");
    ::unsetenv("CKPTRING_DRAIN");
  }

 protected:
  CheckpointerConfig config(const char* behaviour) {
    ::setenv("CUSTOM_DRAIN", behaviour, 1);
    CheckpointerConfig config;
    config.process_config.executable = CUSTOM_DRAIN_PATH;
    config.process_config.block_bytes = 64 << 10;
    config.process_config.ring_bytes = 4 * (64 << 10);
    std::filesystem::create_directory(directory_ / "run");
    return config;
  }
  SaveHandle save(AsyncSave& async) { return async.submit(job_for(directory_ / "run", storages_)); }
  std::string expected() {
    SyncSave sync({}, {}, {});
    return contents_of(sync.run(job_for(directory_ / "sync", storages_)).path);
  }
  static Error error_of(const SaveHandle& save) {
    try {
      save.written.get();
    } catch (const Error& error) {
      return error;
    }
    return {ErrorCode::ok, "", "", "no error"};
  }

  test::TemporaryDirectory directory_;
  std::shared_ptr<test::Storages> storages_ = noise({1'000'000, 33}, 1);
};

TEST_F(CustomWriter, ReceivesTheFileInOrderWithFinalBytes) {
  AsyncSave async(config("write"), {});
  EXPECT_NO_THROW(save(async).written.get());
  EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt.custom") == expected());
}

TEST_F(CustomWriter, ThatThrowsFailsItsSaveWithItsOwnWords) {
  AsyncSave async(config("throw"), {});
  const Error error = error_of(save(async));
  EXPECT_EQ(error.code(), ErrorCode::hook_failed) << error.what();
  EXPECT_NE(error.cause().find("the cloud is full"), std::string::npos) << error.what();
  EXPECT_FALSE(std::filesystem::exists(directory_ / "run/.partial"));
}

TEST_F(CustomWriter, ThatOutlivesTheCheckpointerIsStillHeard) {
  const test::LogLines lines;
  {
    AsyncSave async(config("slow"), {});
    save(async).staged.wait();
  }
  const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (lines.with("all is written").empty() && std::chrono::steady_clock::now() < enough) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_FALSE(lines.with("all is written").empty());
}

TEST_F(CustomWriter, NamedByTheEnvironmentHasThatEnvironmentToo) {
  CheckpointerConfig named = config("throw");  // which a variable tells it
  ::setenv("CKPTRING_DRAIN", named.process_config.executable.c_str(), 1);
  named.process_config.executable.clear();
  AsyncSave async(named, {});
  EXPECT_EQ(error_of(save(async)).code(), ErrorCode::hook_failed);
}

TEST_F(CustomWriter, WhoseProcessDiesFailsItsSave) {
  AsyncSave async(config("die"), {});
  const Error error = error_of(save(async));
  EXPECT_EQ(error.code(), ErrorCode::process_failed) << error.what();
  EXPECT_NE(error.cause().find("terminated by signal 9 (Killed)"), std::string::npos)
      << error.what();
  EXPECT_NE(error.cause().find("out of luck"), std::string::npos) << error.what();
  EXPECT_FALSE(std::filesystem::exists(directory_ / "run/checkpoint_0.pt.custom"));
}

TEST_F(CustomWriter, WhoseProcessDiesWhileItCommitsLeavesTheOutcomeUnknown) {
  AsyncSave async(config("die-committed"), {});
  const Error error = error_of(save(async));
  EXPECT_EQ(error.code(), ErrorCode::outcome_unknown) << error.what();
  EXPECT_NE(error.cause().find("terminated by signal 9 (Killed)"), std::string::npos)
      << error.what();
  EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt.custom") == expected());
}

TEST_F(CustomWriter, ThatHangsFailsItsSaveAsStalled) {
  CheckpointerConfig hanging = config("hang");
  hanging.process_config.stall_timeout_secs = 0.3;
  AsyncSave async(hanging, {});
  const SaveHandle handle = save(async);  // the ring holds a quarter of it
  const Error error = error_of(handle);
  EXPECT_EQ(error.code(), ErrorCode::stalled) << error.what();
  ASSERT_NE(handle.staged.error(), nullptr) << "not all of it was staged";
  EXPECT_THROW(handle.staged.get(), Error);
}

TEST_F(CustomWriter, ThatIsSlowHoldsStagingUpAndIsReportedAndIsNoStall) {
  CheckpointerConfig slow = config("slow");
  // Less than the whole save takes, and much more than one of its sixteen blocks does.
  slow.process_config.stall_timeout_secs = 2.2;
  AsyncSave async(slow, {});
  const SaveHandle handle = save(async);
  EXPECT_FALSE(handle.staged.wait_for(std::chrono::milliseconds(60))) << "the ring holds no more";
  handle.staged.get();
  (*storages_)[0].assign((*storages_)[0].size(), std::byte{0});  // as a trainer may, once staged
  const SaveReport report = handle.written.get();
  EXPECT_GT(report.stalled_seconds, 0.1);
  storages_ = noise({1'000'000, 33}, 1);
  EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt.custom") == expected());
}

TEST_F(CustomWriter, IsReplacedByTheBuiltInOneAroundHooks) {
  AsyncSave async(config("hook-notes"), {});
  const SaveReport report = save(async).written.get();
  EXPECT_TRUE(contents_of(report.path) == expected());
  EXPECT_EQ(contents_of(directory_ / "run/pre"), std::to_string(report.bytes));
  EXPECT_EQ(contents_of(directory_ / "run/post"), report.path);
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_NE(report.warnings[0].find("nobody listens"), std::string::npos);
}

TEST_F(CustomWriter, HookThatThrowsBeforeTheCommitUndoesTheSave) {
  AsyncSave async(config("hook-refuses"), {});
  const Error error = error_of(save(async));
  EXPECT_EQ(error.code(), ErrorCode::hook_failed);
  EXPECT_NE(error.cause().find("not today"), std::string::npos) << error.what();
  EXPECT_TRUE(std::filesystem::is_empty(directory_ / "run"));
}

}  // namespace
}  // namespace ckptring::save
