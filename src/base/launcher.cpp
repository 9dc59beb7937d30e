#include "base/launcher.h"

#include "base/environment.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace ckptring::base {
namespace {

struct Names {
  const char* rank;
  const char* world_size;
  const char* on_this_machine;
};

constexpr Names kTorch{"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"};
constexpr std::array<Names, 3> kMpi{{
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"},
    {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"},
}};
constexpr Names kSlurm{"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"};

[[noreturn]] void refuse(const std::string& cause) {
  throw Error(ErrorCode::invalid_argument, "find out which rank this process is", "",
              cause + "; set RANK and WORLD_SIZE, or give the RankInfo");
}

bool is_set(const char* name) {
  const char* const text = std::getenv(name);
  return text != nullptr && *text != '\0';
}

/// @throws Error if it is half there, or impossible
std::optional<Launch> said_by(const Names& names) {
  const std::optional<int> rank = number_from_environment(names.rank);
  const std::optional<int> size = number_from_environment(names.world_size);
  if (!rank && !size) return std::nullopt;
  if (!rank || !size) {
    refuse(fmt::format("{} is set in the environment, and {} is not",
                       rank ? names.rank : names.world_size, rank ? names.world_size : names.rank));
  }
  if (*rank < 0 || *rank >= *size) {
    refuse(fmt::format("the environment has {}={} and {}={}", names.rank, *rank, names.world_size,
                       *size));
  }
  return Launch{*rank, *size, names.rank};
}

std::string in_words(const Launch& launch) {
  return fmt::format("rank {} of {} by {}", launch.rank, launch.world_size, launch.named_by);
}

[[noreturn]] void refuse_both(const Launch& one, const Launch& other) {
  refuse("the environment makes it " + in_words(one) + " and " + in_words(other));
}

/// A task of srun; no batch script, and nothing that is started in an interactive shell. Script and
/// shell are one process, and have the number 0.
std::optional<Launch> slurm_task() {
  const int task = number_from_environment(kSlurm.rank).value_or(0);
  if (task == 0 && !is_set(kSlurm.world_size)) return std::nullopt;
  return said_by(kSlurm);
}

/// In the shell of srun --pty, what is started by hand has the variables of the shell's own task,
/// and the tasks of a further srun theirs and the shell's SLURM_PTY_PORT: they look alike.
bool may_be_in_a_shell(const std::optional<Launch>& task) {
  return task && task->world_size > 1 && is_set("SLURM_PTY_PORT");
}

/// As in "2(x3),1": two each on three machines, one on the next.
int most_of_slurms_list(std::string_view list) {
  int most = 0;
  while (!list.empty()) {
    const std::string_view entry = list.substr(0, list.find(','));
    list.remove_prefix(std::min(entry.size() + 1, list.size()));
    int count = 0;
    const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), count);
    const std::string_view rest(end, static_cast<std::size_t>(entry.data() + entry.size() - end));
    if (error != std::errc{} || !(rest.empty() || rest.starts_with("(x"))) return 0;
    most = std::max(most, count);
  }
  return most;
}

}  // namespace

std::optional<Launch> launched() {
  if (auto torch = said_by(kTorch)) return torch;
  std::optional<Launch> mpi;
  for (const Names& names : kMpi) {
    const std::optional<Launch> one = said_by(names);
    if (!one) continue;
    if (mpi && (mpi->rank != one->rank || mpi->world_size != one->world_size)) {
      refuse_both(*mpi, *one);
    }
    if (!mpi) mpi = one;
  }
  std::optional<Launch> slurm = slurm_task();
  // One process of MPI for each task of srun, or srun within the one process of MPI.
  if (mpi && slurm && mpi->world_size == 1 && slurm->world_size > 1 && !may_be_in_a_shell(slurm)) {
    refuse_both(*mpi, *slurm);
  }
  if (mpi) return mpi;
  if (may_be_in_a_shell(slurm)) {
    refuse("the environment makes it " + in_words(*slurm) +
           ", or one process in the shell of srun --pty (SLURM_PTY_PORT)");
  }
  if (!slurm && is_set("PMIX_RANK")) {
    refuse("PMIX_RANK is set in the environment, and nothing says how many there are");
  }
  return slurm;
}

std::optional<int> launched_on_this_machine() {
  std::optional<int> most;
  const auto take = [&most](const char* name, int number) {
    if (number < 1) {
      throw Error(ErrorCode::invalid_argument, "read the environment's", name,
                  "it says how many processes there are, and must be positive");
    }
    most = std::max(most.value_or(0), number);
  };
  const auto take_from = [&](const Names& names) {
    const char* const name = names.on_this_machine;
    if (const std::optional<int> number = number_from_environment(name)) take(name, *number);
  };
  take_from(kTorch);
  for (const Names& names : kMpi) take_from(names);
  const char* const tasks = std::getenv(kSlurm.on_this_machine);
  if (tasks != nullptr && *tasks != '\0') {
    take(kSlurm.on_this_machine, most_of_slurms_list(tasks));
  }
  return most;
}

std::optional<std::string> launch_id() {
  const auto text = [](const char* name) -> std::string_view {
    const char* const value = std::getenv(name);
    return value != nullptr ? value : "";
  };
  const std::string_view run = text("TORCHELASTIC_RUN_ID");
  if (!run.empty()) {
    // Each agent counts the restarts that it was the cause of: several of them differ.
    const std::string_view restart = text("TORCHELASTIC_RESTART_COUNT");
    if (run == "none" || restart.empty() || text("GROUP_WORLD_SIZE") != "1") return std::nullopt;
    return fmt::format("torchrun/{}/{}", run, restart);
  }
  // Others start processes within a step, some of them in none, and again in the same one.
  const bool by_another = is_set(kTorch.rank) || std::ranges::any_of(kMpi, [](const Names& names) {
                            return is_set(names.rank);
                          });
  const std::string_view job = text("SLURM_JOB_ID");
  const std::string_view step = text("SLURM_STEP_ID");
  if (by_another || !is_set(kSlurm.rank) || !is_set(kSlurm.world_size) || job.empty() ||
      step.empty()) {
    return std::nullopt;
  }
  return fmt::format("slurm/{}/{}/{}", job, step, text("SLURM_RESTART_COUNT"));
}

}  // namespace ckptring::base
