// The launchers themselves, where they are installed: each rank finds out who it is.
#include <ckptring/checkpoints.h>
#include <ckptring/error.h>

#include "support/launch_environment.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ckptring::test {
namespace {

using ::testing::HasSubstr;

const std::string kWithSlurm = std::string(CKPTRING_WITH_SLURM) + " ";
constexpr int kNoSlurm = 77;

struct Result {
  int status = -1;
  std::string output;  ///< and errors
};

Result run(const std::string& command) {
  std::FILE* const pipe = ::popen(("exec 2>&1; " + command).c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen");
  Result result;
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), static_cast<int>(part.size()), pipe) != nullptr) {
    result.output += part.data();
  }
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) result.status = WEXITSTATUS(status);
  return result;
}

bool is_installed(const std::string& program) { return run("command -v " + program).status == 0; }

class Launchers : public ::testing::Test {
 protected:
  [[nodiscard]] std::string trainer() const {
    return std::string(CKPTRING_LAUNCHED_TRAINER) + " " + directory_.path();
  }
  /// Open MPI asks twice before it does anything as root.
  static std::string mpirun(int processes) {
    return "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun.openmpi "
           "--oversubscribe -n " +
           std::to_string(processes) + " ";
  }

  /// @param names of the files of each checkpoint, in order
  void expect_files(const Result& result, const std::vector<std::string>& names) const {
    ASSERT_EQ(result.status, 0) << result.output;
    for (const char* step : {"step_1", "step_2"}) {
      std::vector<std::string> found;
      for (const auto& entry : std::filesystem::directory_iterator(directory_ / step)) {
        found.push_back(entry.path().filename());
      }
      std::ranges::sort(found);
      EXPECT_EQ(found, names) << result.output;
    }
    const auto newest = latest(directory_.path(), {0});
    ASSERT_TRUE(newest) << result.output;
    EXPECT_EQ(newest->step, 2);
    EXPECT_EQ(newest->world_size, static_cast<int>(names.size()));
    EXPECT_EQ(result.output.find("replaced"), std::string::npos) << result.output;
  }
  void expect_three(const Result& result) const {
    expect_files(result, {"checkpoint_0.pt", "checkpoint_1.pt", "checkpoint_2.pt"});
    for (const char* rank : {"rank 0 of 3", "rank 1 of 3", "rank 2 of 3"}) {
      EXPECT_THAT(result.output, HasSubstr(rank));
    }
  }
  /// A batch script of Slurm; what it prints is the result.
  [[nodiscard]] Result run_batch(const std::string& line) const {
    std::ofstream(directory_ / "script") << "#!/bin/sh\n" << line << "\n";
    Result result = run(kWithSlurm + "sbatch --wait --overcommit -n 3 -o '" +
                        (directory_ / "output") + "' '" + (directory_ / "script") + "'");
    std::ifstream output(directory_ / "output");
    for (std::string said; std::getline(output, said);) result.output += said + "\n";
    std::filesystem::remove(directory_ / "script");
    std::filesystem::remove(directory_ / "output");
    return result;
  }

  LaunchEnvironment nobody_;  // whoever has launched this test
  TemporaryDirectory directory_;
};

TEST_F(Launchers, OpenMpiNamesItsRanks) {
  if (!is_installed("mpirun.openmpi")) GTEST_SKIP() << "no Open MPI (Debian: openmpi-bin)";
  expect_three(run(mpirun(3) + trainer()));
}

TEST_F(Launchers, MpichNamesItsRanks) {
  if (!is_installed("mpiexec.hydra")) GTEST_SKIP() << "no MPICH (Debian: mpich)";
  expect_three(run("mpiexec.hydra -n 3 " + trainer()));
}

TEST_F(Launchers, SrunNamesItsRanks) {
  const Result result = run(kWithSlurm + "srun --overcommit -n 3 " + trainer());
  if (result.status == kNoSlurm) GTEST_SKIP() << result.output;
  expect_three(result);
}

TEST_F(Launchers, ABatchScriptOfSlurmIsOneProcess) {
  const Result result = run_batch("exec " + trainer());
  if (result.status == kNoSlurm) GTEST_SKIP() << result.output;
  expect_files(result, {"checkpoint_0.pt"});
}

TEST_F(Launchers, SrunWithinABatchScriptNamesItsRanks) {
  const Result result = run_batch("srun --overcommit -n 3 " + trainer());
  if (result.status == kNoSlurm) GTEST_SKIP() << result.output;
  expect_three(result);
}

TEST_F(Launchers, OpenMpiWithinABatchScriptNamesItsRanks) {
  if (!is_installed("mpirun.openmpi")) GTEST_SKIP() << "no Open MPI (Debian: openmpi-bin)";
  const Result result = run_batch(mpirun(3) + trainer());
  if (result.status == kNoSlurm) GTEST_SKIP() << result.output;
  expect_three(result);
}

TEST_F(Launchers, MpichWithinABatchScriptNamesItsRanks) {
  if (!is_installed("mpiexec.hydra")) GTEST_SKIP() << "no MPICH (Debian: mpich)";
  const Result result = run_batch("mpiexec.hydra -n 3 " + trainer());
  if (result.status == kNoSlurm) GTEST_SKIP() << result.output;
  expect_three(result);
}

TEST_F(Launchers, OneProcessOfMpiThatStartsSeveralOfSrunIsToldSo) {
  if (!is_installed("mpirun.openmpi")) GTEST_SKIP() << "no Open MPI (Debian: openmpi-bin)";
  const Result result = run_batch(mpirun(1) + "srun --overcommit -n 3 " + trainer());
  if (result.status == kNoSlurm) GTEST_SKIP() << result.output;
  EXPECT_NE(result.status, 0);
  EXPECT_THAT(result.output, HasSubstr("rank 0 of 1 by OMPI_COMM_WORLD_RANK and rank 2 of 3 by "
                                       "SLURM_PROCID; set RANK and WORLD_SIZE"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "step_1"));
}

}  // namespace
}  // namespace ckptring::test
