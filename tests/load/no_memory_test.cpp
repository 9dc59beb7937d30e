// Loading where there is not enough memory for it.
#include <ckptring/error.h>
#include <ckptring/reader.h>

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "load/files.h"
#include "support/temporary_directory.h"

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

}  // namespace
}  // namespace ckptring::test
