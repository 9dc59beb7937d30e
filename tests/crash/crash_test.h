// What the crash tests have in common: their fixture, the files they expect, what may be left over.
#pragma once

#include "save/sync_save.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"
#include "support/write_modes.h"

#include <ckptring/log.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

namespace ckptring::test {

/// The file of these storages as the sync path writes it.
inline std::string undisturbed_file(const std::string& directory,
                                    std::shared_ptr<Storages> storages) {
  save::SyncSave sync({}, {}, {});
  return contents_of(sync.run(job_for(directory, std::move(storages))).path);
}

inline std::ptrdiff_t entries_of(const std::string& directory) {
  return std::distance(std::filesystem::directory_iterator(directory), {});
}

inline std::ptrdiff_t open_descriptors() { return entries_of("/proc/self/fd"); }

/// Whether this process has any child left, ended ones included.
inline bool has_children() {
  ::siginfo_t event{};
  return ::waitid(P_ALL, 0, &event, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0;
}

/// Restarts and failed saves are what these tests are about: their warnings are not printed.
class CrashTest : public ::testing::Test {
 protected:
  void SetUp() override { set_log_level(LogLevel::error); }
  void TearDown() override { set_log_level(LogLevel::warn); }

  TemporaryDirectory directory_;
};

using CrashTestOfModes = OfWriteModes<CrashTest>;

}  // namespace ckptring::test
