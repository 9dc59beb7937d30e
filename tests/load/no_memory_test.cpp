// Loading where there is not enough memory for it.
#include <ATen/core/Dict.h>
#include <ATen/ops/empty.h>
#include <ckptring/error.h>
#include <ckptring/reader.h>

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#include "load/files.h"
#include "support/error_of.h"
#include "support/own_mounts.h"
#include "support/temporary_directory.h"
#include "torch/libtorch_error.h"

#include <gtest/gtest.h>

namespace ckptring::test {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::uint64_t address_space() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t pages = 0;
  statm >> pages;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

enum Outcome : int { loaded, out_of_memory, other_error, no_error_of_ours, ended };

/// Loads in a child that may take so much more than it has.
Outcome load_with(const std::string& path, std::uint64_t more) {
  const pid_t child = ::fork();
  if (child == 0) {
    (void)::malloc_trim(0);  // what the parent has left to it
    const rlim_t limit = address_space() + more;
    const struct ::rlimit limits { limit, limit };
    if (::setrlimit(RLIMIT_AS, &limits) != 0) ::_exit(ended);
    try {
      const LoadResult result = CheckpointReader().read(path, {}, {.threads = 1});
      ::_exit(result.state.empty() ? other_error : loaded);
    } catch (const Error& error) {
      ::_exit(error.code() == ErrorCode::out_of_memory && !error.cause().empty() &&
                      error.path() == path
                  ? out_of_memory
                  : other_error);
    } catch (...) {
      ::_exit(no_error_of_ours);
    }
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return ended;
  return static_cast<Outcome>(WEXITSTATUS(status));
}

TEST(NoMemory, WhatDoesNotFitIsAnErrorThatSaysSo) {
  const TemporaryDirectory directory;
  const std::string path = directory / "file.pt";
  write_archive(path, "}" + pickled("w") + "N" + "s.");
  (void)CheckpointReader().read(path);  // what libtorch makes once

  const std::string storage = "(" + pickled("storage") + "ctorch\nByteStorage\n" + pickled("0") +
                              pickled("cpu") + "J" + little(64 * kMiB, 4) + "tQ";
  const std::string tensor = "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + "K" + little(0, 1) +
                             "J" + little(64 * kMiB, 4) + "\x85" + "K\x01\x85\x89" +
                             "ccollections\nOrderedDict\n)RtR";
  struct Case {
    std::string pickle;
    std::uint64_t enough;
  };
  const std::vector<Case> cases = {
      {list_of(repeated("N", 4 * kMiB)), 400 * kMiB},      // the pickle's own tables
      {list_of(repeated("](NNe", kMiB / 2)), 500 * kMiB},  // libtorch's objects
      {list_of(tensor), 300 * kMiB},                       // the elements of a tensor
  };
  for (const Case& one : cases) {
    write_archive(path, one.pickle, {64 * kMiB});
    int refused = 0;
    for (std::uint64_t more = 2 * kMiB; more < one.enough; more += more / 2 + kMiB) {
      const Outcome outcome = load_with(path, more);
      EXPECT_TRUE(outcome == loaded || outcome == out_of_memory)
          << outcome << " with " << more / kMiB << " MiB, " << one.pickle.substr(0, 20);
      if (outcome == out_of_memory) ++refused;
    }
    EXPECT_GE(refused, 1);
    EXPECT_EQ(load_with(path, 4 * one.enough), loaded);
  }
}

TEST(NoMemory, WhatLeavesTooLittleToOthersIsRefusedWhereverItIsBuilt) {
  const TemporaryDirectory directory;
  const std::string path = directory / "file.pt";
  // {"few": None, "l": [[None], ...]}
  write_archive(path, "}" + pickled("few") + "Ns" + pickled("l") + "](" +
                          repeated("]Na", 5 * kMiB / 2) + "es.");
  const std::string meminfo = directory / "meminfo";
  std::ofstream(meminfo) << "MemTotal: 200000 kB\nMemAvailable: 100000 kB\n";
  const InOwnMounts ended = in_own_mounts([&]() -> std::string {
    if (::mount(meminfo.c_str(), "/proc/meminfo", nullptr, MS_BIND, nullptr) != 0) {
      throw Refused("a file in place of /proc/meminfo", errno);
    }
    const auto outcome = [&](const std::optional<StateDict>& state) -> std::string {
      try {
        (void)CheckpointReader().read(path, state, {.threads = 1});
        return "loaded";
      } catch (const Error& error) {
        return std::string(to_string(error.code())) + ": " + error.what();
      }
    };
    const auto refused = [](const std::string& words, const std::string& key) {
      return words.starts_with("out_of_memory: load key " + key) &&
             words.find("MiB are left (MemAvailable)") != std::string::npos;
    };
    if (const std::string words = outcome({}); !refused(words, "(the whole state)")) return words;
    StateDict all = make_state_dict();
    all.insert_or_assign("l", c10::IValue());
    if (const std::string words = outcome(all); !refused(words, "l[")) return "in place: " + words;
    if (!all.at("l").isNone()) return "the state was changed";
    StateDict few = make_state_dict();
    few.insert_or_assign("few", c10::IValue());
    if (const std::string words = outcome(few); words != "loaded") return "few: " + words;
    return "";
  });
  if (!ended.refused.empty()) GTEST_SKIP() << ended.refused;
  EXPECT_EQ(ended.failure, "");
}

TEST(NoMemory, LibtorchsAllocatorOfTheHostIsUnderstoodEverywhere) {
  const auto make = [] { return at::empty({std::int64_t{1} << 60}, c10::kByte); };
  const Error direct =
      error_of([&] { (void)torch_state::through_libtorch(c10::kCPU, "make it", make); });
  EXPECT_EQ(direct.code(), ErrorCode::out_of_memory) << direct.what();
  const Error whole = error_of(
      [&] { (void)torch_state::in_own_words(ErrorCode::internal, "load", "/file.pt", make); });
  EXPECT_EQ(whole.code(), ErrorCode::out_of_memory) << whole.what();
  // Only that.
  const auto misuse = [] { return at::empty({2}, c10::kByte).view({3}); };
  EXPECT_EQ(
      error_of([&] { (void)torch_state::through_libtorch(c10::kCPU, "view it", misuse); }).code(),
      ErrorCode::internal);
}

}  // namespace
}  // namespace ckptring::test
