// The environments were taken from the launchers themselves, in one container: Open MPI 4.1, MPICH
// 4.0 and Slurm 22.05.
#include "base/launcher.h"

#include "support/launch_environment.h"

#include <ckptring/error.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

namespace ckptring::base {
namespace {

using test::LaunchEnvironment;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Variables = LaunchEnvironment::Variables;

const Variables kOpenMpi{{"OMPI_COMM_WORLD_RANK", "1"},
                         {"OMPI_COMM_WORLD_SIZE", "3"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                         {"PMIX_RANK", "1"},
                         {"PMIX_NAMESPACE", "301989889"}};
const Variables kHydra{
    {"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MPI_LOCALNRANKS", "3"}, {"MPI_LOCALRANKID", "2"}};
const Variables kBatchScript{{"SLURM_JOB_ID", "1"},  {"SLURM_PROCID", "0"},
                             {"SLURM_NTASKS", "4"},  {"SLURM_NPROCS", "4"},
                             {"SLURM_LOCALID", "0"}, {"SLURM_TASKS_PER_NODE", "4"}};
const Variables kSalloc{{"SLURM_JOB_ID", "3"},
                        {"SLURM_NTASKS", "3"},
                        {"SLURM_NPROCS", "3"},
                        {"SLURM_JOB_NAME", "interactive"},
                        {"SLURM_TASKS_PER_NODE", "3"}};
const Variables kSrun{{"SLURM_JOB_ID", "1"},         {"SLURM_PROCID", "3"},
                      {"SLURM_NTASKS", "4"},         {"SLURM_STEP_ID", "0"},
                      {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_TASKS_PER_NODE", "4"}};
const Variables kSrunPmi2{{"SLURM_PROCID", "1"},
                          {"SLURM_NTASKS", "2"},
                          {"SLURM_STEP_NUM_TASKS", "2"},
                          {"SLURM_STEP_TASKS_PER_NODE", "2"},
                          {"PMI_RANK", "1"},
                          {"PMI_SIZE", "2"}};
/// Of mpirun's daemon, which is started by srun, once on each machine.
const Variables kDaemonsStep{{"SLURM_PROCID", "0"},
                             {"SLURM_NTASKS", "4"},
                             {"SLURM_STEP_ID", "3"},
                             {"SLURM_STEP_NUM_TASKS", "1"},
                             {"SLURM_STEP_TASKS_PER_NODE", "1"}};

void put(LaunchEnvironment& environment, const std::vector<Variables>& sets) {
  for (const Variables& set : sets) {
    for (const auto& [name, value] : set) environment.put(name, value);
  }
}

std::string said(const std::vector<Variables>& sets) {
  LaunchEnvironment now;
  put(now, sets);
  const std::optional<Launch> launch = launched();
  if (!launch) return "nothing";
  return std::to_string(launch->rank) + " of " + std::to_string(launch->world_size) + " by " +
         launch->named_by;
}

std::string refusal(const std::vector<Variables>& sets) {
  LaunchEnvironment now;
  put(now, sets);
  try {
    (void)launched();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "it was not refused";
}

int on_this_machine(const std::vector<Variables>& sets) {
  LaunchEnvironment now;
  put(now, sets);
  return launched_on_this_machine().value_or(0);
}

TEST(Launched, ByNobodySaysNothing) {
  EXPECT_EQ(said({}), "nothing");
  EXPECT_EQ(said({{{"RANK", ""}, {"WORLD_SIZE", ""}, {"PMIX_RANK", ""}}}), "nothing");
  EXPECT_EQ(on_this_machine({}), 0);
}

TEST(Launched, ByEachLauncherSaysWhatThatSays) {
  EXPECT_EQ(said({{{"RANK", "3"}, {"WORLD_SIZE", "8"}}}), "3 of 8 by RANK");
  EXPECT_EQ(said({kOpenMpi}), "1 of 3 by OMPI_COMM_WORLD_RANK");
  EXPECT_EQ(said({kHydra}), "2 of 3 by PMI_RANK");
  EXPECT_EQ(said({{{"MV2_COMM_WORLD_RANK", "0"}, {"MV2_COMM_WORLD_SIZE", "2"}}}),
            "0 of 2 by MV2_COMM_WORLD_RANK");
  EXPECT_EQ(said({kSrun}), "3 of 4 by SLURM_PROCID");
  EXPECT_EQ(said({kSrunPmi2}), "1 of 2 by PMI_RANK");
  EXPECT_EQ(said({kSrun, {{"PMIX_RANK", "3"}}}), "3 of 4 by SLURM_PROCID") << "srun --mpi=pmix";
}

TEST(Launched, ByABatchScriptOrAnInteractiveShellIsOneProcess) {
  EXPECT_EQ(said({kBatchScript}), "nothing");
  EXPECT_EQ(said({kSalloc}), "nothing");
  EXPECT_EQ(on_this_machine({kBatchScript}), 0);
  // srun --pty bash
  const Variables shell{{"SLURM_PROCID", "0"},
                        {"SLURM_STEP_NUM_TASKS", "1"},
                        {"SLURM_STEP_TASKS_PER_NODE", "1"},
                        {"SLURM_PTY_PORT", "40123"}};
  EXPECT_EQ(said({shell}), "0 of 1 by SLURM_PROCID");
  EXPECT_EQ(said({shell, kOpenMpi}), "1 of 3 by OMPI_COMM_WORLD_RANK");
}

TEST(Launched, ByOneOfSeveralTasksInAShellOfSrunIsAnErrorForEachOfThem) {
  for (const char* task : {"0", "2"}) {
    // srun -n 4 --pty bash, or srun -n 4 in the shell of srun --pty bash
    const Variables shell{{"SLURM_PROCID", task}, {"SLURM_PTY_PORT", "40123"}};
    EXPECT_THAT(refusal({kSrun, shell}),
                AllOf(HasSubstr(std::string("rank ") + task + " of 4 by SLURM_PROCID"),
                      HasSubstr("shell of srun --pty"), HasSubstr("set RANK")));
    EXPECT_GT(on_this_machine({kSrun, shell}), 1);
    EXPECT_EQ(said({kSrun, shell, {{"RANK", "0"}, {"WORLD_SIZE", "1"}}}), "0 of 1 by RANK");
    EXPECT_EQ(said({kSrun, shell, {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}}}),
              "0 of 1 by OMPI_COMM_WORLD_RANK");
  }
}

TEST(Launched, ByOneWithinAnotherIsWhatTheInnerOneSays) {
  const Variables torchrun{{"RANK", "5"}, {"WORLD_SIZE", "6"}, {"LOCAL_WORLD_SIZE", "6"}};
  for (const Variables& outer : {kOpenMpi, kHydra, kBatchScript, kSalloc, kSrun, kSrunPmi2}) {
    EXPECT_EQ(said({outer, torchrun}), "5 of 6 by RANK");
  }
  for (const Variables& outer : {kBatchScript, kSalloc, kDaemonsStep}) {
    EXPECT_EQ(said({outer, kOpenMpi}), "1 of 3 by OMPI_COMM_WORLD_RANK");
    EXPECT_EQ(said({outer, kHydra}), "2 of 3 by PMI_RANK");
  }
}

TEST(Launched, ByTwoThatCannotBothBeRightIsAnError) {
  const Variables alone{{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}};
  EXPECT_THAT(refusal({alone, kSrun}),
              AllOf(HasSubstr("rank 0 of 1 by OMPI_COMM_WORLD_RANK"),
                    HasSubstr("rank 3 of 4 by SLURM_PROCID"), HasSubstr("set RANK")));
  EXPECT_THAT(refusal({kOpenMpi, kHydra}), HasSubstr("rank 2 of 3 by PMI_RANK"));
  EXPECT_EQ(said({alone, kSrun, {{"RANK", "0"}, {"WORLD_SIZE", "1"}}}), "0 of 1 by RANK");
  EXPECT_EQ(said({alone, kDaemonsStep}), "0 of 1 by OMPI_COMM_WORLD_RANK");
}

TEST(Launched, WithHalfOfWhatThereIsToSayIsAnError) {
  for (const auto& [one, other] : {std::pair("RANK", "WORLD_SIZE"),
                                   {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                   {"PMI_RANK", "PMI_SIZE"},
                                   {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"}}) {
    for (const char* rank : {"0", "1"}) {
      EXPECT_THAT(refusal({{{one, rank}}}),
                  AllOf(HasSubstr(std::string(one) + " is set in the environment, and " + other),
                        HasSubstr("set RANK and WORLD_SIZE, or give the RankInfo")));
    }
    EXPECT_THAT(refusal({{{other, "2"}}}), HasSubstr(std::string(other) + " is set"));
  }
  EXPECT_THAT(refusal({{{"PMIX_RANK", "0"}}}), HasSubstr("PMIX_RANK is set"));
  // A container that gets some of the variables of a task.
  EXPECT_THAT(refusal({{{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "4"}}}),
              HasSubstr("SLURM_PROCID is set in the environment, and SLURM_STEP_NUM_TASKS is not"));
  EXPECT_THAT(refusal({{{"SLURM_STEP_NUM_TASKS", "4"}}}), HasSubstr("SLURM_PROCID is not"));
}

TEST(Launched, WithNonsenseIsAnError) {
  EXPECT_THAT(refusal({{{"RANK", "8"}, {"WORLD_SIZE", "8"}}}),
              HasSubstr("RANK=8 and WORLD_SIZE=8"));
  EXPECT_THAT(refusal({{{"RANK", "-1"}, {"WORLD_SIZE", "8"}}}), HasSubstr("RANK=-1"));
  EXPECT_THAT(refusal({{{"RANK", "0"}, {"WORLD_SIZE", "0"}}}), HasSubstr("WORLD_SIZE=0"));
  for (const char* nonsense : {"x", "1 ", "1.0", "99999999999"}) {
    EXPECT_THAT(refusal({{{"PMI_RANK", nonsense}, {"PMI_SIZE", "8"}}}),
                AllOf(HasSubstr("PMI_RANK"), HasSubstr("is not a whole number")));
  }
}

TEST(Launched, OnThisMachineAreAsManyAsAnyLauncherSays) {
  EXPECT_EQ(on_this_machine({{{"LOCAL_WORLD_SIZE", "8"}}}), 8);
  EXPECT_EQ(on_this_machine({kOpenMpi}), 3);
  EXPECT_EQ(on_this_machine({kHydra}), 3);
  EXPECT_EQ(on_this_machine({{{"MV2_COMM_WORLD_LOCAL_SIZE", "2"}}}), 2);
  EXPECT_EQ(on_this_machine({kSrun}), 4);
  EXPECT_EQ(on_this_machine({kDaemonsStep, kHydra}), 3);
  // torchrun in each of srun's tasks
  EXPECT_EQ(on_this_machine({kSrun, {{"LOCAL_WORLD_SIZE", "1"}}}), 4);
  for (const auto& [list, most] : {std::pair("2(x3),1", 2), {"1,3(x2)", 3}, {"16", 16}}) {
    EXPECT_EQ(on_this_machine({{{"SLURM_STEP_TASKS_PER_NODE", list}}}), most) << list;
  }
  for (const auto& [name, nonsense] : {std::pair("LOCAL_WORLD_SIZE", "0"),
                                       {"LOCAL_WORLD_SIZE", "-1"},
                                       {"LOCAL_WORLD_SIZE", "many"},
                                       {"MPI_LOCALNRANKS", "0"},
                                       {"SLURM_STEP_TASKS_PER_NODE", "x"},

                                       {"SLURM_STEP_TASKS_PER_NODE", "2x"},
                                       {"SLURM_STEP_TASKS_PER_NODE", "0"}}) {
    EXPECT_THROW(on_this_machine({{{name, nonsense}}}), Error) << name << "=" << nonsense;
  }
}

TEST(LaunchId, IsTorchrunsRunAndRestart) {
  LaunchEnvironment launched{{"TORCHELASTIC_RUN_ID", "blue"},
                             {"TORCHELASTIC_RESTART_COUNT", "0"},
                             {"GROUP_WORLD_SIZE", "1"}};
  const auto first = launch_id();
  ASSERT_TRUE(first);
  EXPECT_EQ(launch_id(), first);
  launched.put("TORCHELASTIC_RESTART_COUNT", "1");
  const auto second = launch_id();
  ASSERT_TRUE(second);
  EXPECT_NE(first, second);
  launched.put("GROUP_WORLD_SIZE", "2");
  EXPECT_EQ(launch_id(), std::nullopt) << "the other node may count another number of restarts";
  launched.put("GROUP_WORLD_SIZE", "1");
  launched.put("TORCHELASTIC_RUN_ID", "none");  // what it says by default, to every job
  EXPECT_EQ(launch_id(), std::nullopt);
  launched.put("SLURM_JOB_ID", "1");
  launched.put("SLURM_STEP_ID", "0");
  EXPECT_EQ(launch_id(), std::nullopt) << "torchrun starts its processes again within one step";
}

TEST(LaunchId, IsSlurmsJobStepAndRestart) {
  LaunchEnvironment launched{{"SLURM_JOB_ID", "1"}};
  EXPECT_EQ(launch_id(), std::nullopt) << "a batch script's own process";
  launched.put("SLURM_STEP_ID", "0");
  EXPECT_EQ(launch_id(), std::nullopt);
  launched.put("SLURM_PROCID", "1");
  launched.put("SLURM_STEP_NUM_TASKS", "2");
  std::vector<std::optional<std::string>> ids{launch_id()};
  launched.put("SLURM_RESTART_COUNT", "1");
  ids.push_back(launch_id());
  launched.put("SLURM_STEP_ID", "1");
  ids.push_back(launch_id());
  launched.put("SLURM_JOB_ID", "2");
  ids.push_back(launch_id());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ASSERT_TRUE(ids[i]);
    for (std::size_t k = 0; k < i; ++k) EXPECT_NE(ids[i], ids[k]);
  }
  for (const char* const other : {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"}) {
    LaunchEnvironment within{{"SLURM_JOB_ID", "1"},
                             {"SLURM_STEP_ID", "0"},
                             {"SLURM_PROCID", "1"},
                             {"SLURM_STEP_NUM_TASKS", "2"}};
    ASSERT_TRUE(launch_id());
    within.put(other, "1");
    EXPECT_EQ(launch_id(), std::nullopt) << other;
  }
}

TEST(LaunchId, IsNothingWithoutALauncher) {
  const LaunchEnvironment nobody;
  EXPECT_EQ(launch_id(), std::nullopt);
}

}  // namespace
}  // namespace ckptring::base
