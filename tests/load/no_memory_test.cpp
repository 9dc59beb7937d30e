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
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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

enum Outcome : int { loaded, out_of_memory, mismatch, other_error, no_error_of_ours, ended };

Outcome outcome_of(const Error& error, const std::string& path) {
  if (error.cause().empty() || error.path() != path) return other_error;
  switch (error.code()) {
    case ErrorCode::out_of_memory:
      return out_of_memory;
    case ErrorCode::mismatch:
      return mismatch;
    default:
      return other_error;
  }
}

/// Loads in a child that may take so much more than it has.
Outcome load_with(const std::string& path, std::uint64_t more,
                  const std::optional<StateDict>& into = {}) {
  const pid_t child = ::fork();
  if (child == 0) {
    (void)::malloc_trim(0);  // what the parent has left to it
    const rlim_t limit = address_space() + more;
    const struct ::rlimit limits { limit, limit };
    if (::setrlimit(RLIMIT_AS, &limits) != 0) ::_exit(ended);
    try {
      const LoadResult result = CheckpointReader().read(path, into, {.threads = 1});
      ::_exit(result.state.empty() ? other_error : loaded);
    } catch (const Error& error) {
      ::_exit(outcome_of(error, path));
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

/// torch's tensor of floats over data/{record}, of as many elements in each dimension.
std::string float_tensor(int record, std::int64_t elements, std::int64_t size,
                         const std::vector<std::int64_t>& strides) {
  const auto tuple = [](const std::vector<std::int64_t>& numbers) {
    std::string made = "(";
    for (const std::int64_t number : numbers) made += pickled(number);
    return made + "t";
  };
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + pickled("storage") + "ctorch\nFloatStorage\n" +
         pickled(std::to_string(record)) + pickled("cpu") + pickled(elements) + "tQ" +
         pickled(std::int64_t{0}) + tuple(std::vector(strides.size(), size)) + tuple(strides) +
         "\x89" + "ccollections\nOrderedDict\n)RtR";
}

TEST(NoMemory, ComparingTakesAsMuchAsTheFileHas) {
  const TemporaryDirectory directory;
  const std::string path = directory / "file.pt";
  write_archive(path, "}" + pickled("w") + "N" + "s.");
  (void)CheckpointReader().read(path);  // what libtorch makes once
  struct Case {
    std::int64_t size;
    std::vector<std::int64_t> strides;  ///< of the second tensor; the first one's are 1
    Outcome expected;
  };
  // Two tensors for one place, both of far more elements than bytes.
  for (const Case& one :
       {Case{20000, {1, 1}, loaded}, Case{300000, {1, 1}, loaded}, Case{300, {2, 1}, mismatch},
        Case{20000, {2, 1}, mismatch}, Case{300000, {2, 3}, mismatch}}) {
    const std::int64_t first = 2 * one.size - 1;
    const std::int64_t second = (one.size - 1) * (one.strides[0] + one.strides[1]) + 1;
    const auto dict_of = [&](const std::string& tensor) {
      return "}" + pickled("x") + tensor + "s";
    };
    write_archive(path,
                  "}(" + pickled("a") + dict_of(float_tensor(0, first, one.size, {1, 1})) +
                      pickled("b") + dict_of(float_tensor(1, second, one.size, one.strides)) + "u.",
                  {static_cast<std::size_t>(first) * 4, static_cast<std::size_t>(second) * 4});
    StateDict shared = make_state_dict();
    shared.insert_or_assign("x", c10::IValue());
    StateDict state = make_state_dict();
    state.insert_or_assign("a", shared);
    state.insert_or_assign("b", shared);
    EXPECT_EQ(load_with(path, 200 * kMiB, state), one.expected)
        << one.size << ", " << one.strides[0];
  }
}

/// Runs `body` where the system says that it has 100 MB left.
InOwnMounts where_little_is_left(const TemporaryDirectory& directory,
                                 const std::function<std::string()>& body) {
  const std::string meminfo = directory / "meminfo";
  std::ofstream(meminfo) << "MemTotal: 200000 kB\nMemAvailable: 100000 kB\n";
  return in_own_mounts([&]() -> std::string {
    if (::mount(meminfo.c_str(), "/proc/meminfo", nullptr, MS_BIND, nullptr) != 0) {
      throw Refused("a file in place of /proc/meminfo", errno);
    }
    return body();
  });
}

/// "loaded", or the error's words.
std::string words_of_load(const std::string& path, const std::optional<StateDict>& state) {
  try {
    (void)CheckpointReader().read(path, state, {.threads = 1});
    return "loaded";
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  }
}

/// Whether the words are that too little is left for this key.
bool is_refused(const std::string& words, const std::string& key) {
  return words.starts_with("out_of_memory: load key " + key) &&
         words.find("MiB are left (MemAvailable)") != std::string::npos;
}

TEST(NoMemory, WhatLeavesTooLittleToOthersIsRefusedWhereverItIsBuilt) {
  const TemporaryDirectory directory;
  const std::string path = directory / "file.pt";
  // {"few": None, "l": [[None], ...]}
  write_archive(path, "}" + pickled("few") + "Ns" + pickled("l") + "](" +
                          repeated("]Na", 5 * kMiB / 2) + "es.");
  const InOwnMounts ended = where_little_is_left(directory, [&]() -> std::string {
    std::string whole = words_of_load(path, {});
    if (!is_refused(whole, "(the whole state)")) return whole;
    StateDict all = make_state_dict();
    all.insert_or_assign("l", c10::IValue());
    const std::string in_place = words_of_load(path, all);
    if (!is_refused(in_place, "l[")) return "in place: " + in_place;
    if (!all.at("l").isNone()) return "the state was changed";
    StateDict few = make_state_dict();
    few.insert_or_assign("few", c10::IValue());
    const std::string of_few = words_of_load(path, few);
    return of_few == "loaded" ? "" : "few: " + of_few;
  });
  if (!ended.refused.empty()) GTEST_SKIP() << ended.refused;
  EXPECT_EQ(ended.failure, "");
}

TEST(NoMemory, OneLargeContainerIsAskedForBeforeItIsMade) {
  const TemporaryDirectory directory;
  const std::string path = directory / "file.pt";
  // {"few": None, "c": [None, ...]}, and the same with a dict.
  std::string dict = "}(";
  for (std::uint64_t i = 0; i < 5 * kMiB / 2; ++i) dict += "J" + little(i, 4) + "N";
  for (const std::string& container :
       {"](" + repeated("N", 17 * kMiB) + "e", std::move(dict) + "u"}) {
    write_archive(path, "}" + pickled("few") + "Ns" + pickled("c").append(container).append("s."));
    const InOwnMounts ended = where_little_is_left(directory, [&]() -> std::string {
      StateDict state = make_state_dict();
      state.insert_or_assign("c", c10::IValue());
      const std::string words = words_of_load(path, state);
      return is_refused(words, "c from") ? "" : words;
    });
    if (!ended.refused.empty()) GTEST_SKIP() << ended.refused;
    EXPECT_EQ(ended.failure, "") << container.substr(0, 2);
  }
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
