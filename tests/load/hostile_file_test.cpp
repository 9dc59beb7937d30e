// Files made to do harm, from the first byte to the finished state.
#include <ATen/Functions.h>
#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ckptring/checkpointer.h>
#include <ckptring/error.h>
#include <ckptring/reader.h>

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "load/files.h"
#include "plan/dict_table.h"
#include "plan/pt_archive.h"
#include "store/file_source.h"
#include "support/allocation_meter.h"
#include "support/colliding_ints.h"
#include "support/fault_row.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ckptring::test {
namespace {

using ::testing::HasSubstr;
using namespace std::string_literals;  // NUL bytes in pickles

constexpr std::size_t kMiB = std::size_t{1} << 20;

/// Where the hash of libtorch's dict sends a hash.
std::uint64_t slot(std::uint64_t hash, unsigned log2) { return (hash * kFibonacci) >> (64 - log2); }

/// Ints that all want the first slot of a table, however large it is.
std::vector<std::string> colliding_ints(int count) {
  std::vector<std::string> keys;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t key = colliding_int(static_cast<std::uint64_t>(i));
    EXPECT_EQ(slot(key, 30), 0U);
    keys.push_back(pickled(static_cast<std::int64_t>(key)));
  }
  return keys;
}

/// Strings that all want one slot of a table of 2^17, found by trying.
std::vector<std::string> colliding_texts(std::size_t count) {
  constexpr unsigned kLog2 = 17;
  std::map<std::uint64_t, std::vector<std::string>> found;
  for (std::uint64_t i = 0;; ++i) {
    const std::string text = std::to_string(i);
    std::vector<std::string>& same = found[slot(plan::dict_hash(text), kLog2)];
    same.push_back(pickled(text));
    if (same.size() == count) return same;
  }
}

std::string dict_of(const std::vector<std::string>& keys) {
  std::string pickle = "}(";
  for (const std::string& key : keys) pickle += key + "N";
  return pickle + "u";
}

/// Of this thread.
double processor_seconds() {
  struct ::timespec time {};
  EXPECT_EQ(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time), 0);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

class HostileFile : public ::testing::Test {
 protected:
  struct Outcome {
    std::optional<StateDict> state;
    std::optional<Error> error;
    std::size_t peak = 0;
    double seconds = 0;  ///< of the processor: others may have it meanwhile
  };

  /// Loads a file with this pickle, into a state if one is given.
  Outcome load(std::string_view pickle, const std::optional<StateDict>& into = {}) {
    write_archive(path_, pickle);
    Outcome outcome;
    const double start = processor_seconds();
    const AllocationMeter meter;
    try {
      outcome.state = CheckpointReader().read(path_, into).state;
    } catch (const Error& error) {
      outcome.error = error;
    }
    outcome.peak = meter.peak();
    outcome.seconds = processor_seconds() - start;
    if (outcome.error) {
      EXPECT_THAT(outcome.error->code(),
                  ::testing::AnyOf(ErrorCode::damaged, ErrorCode::unsupported_value))
          << outcome.error->what();
    }
    return outcome;
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "file.pt";
};

TEST_F(HostileFile, KeysThatCollideInADictTakeNoMemory) {
  (void)load("}.");  // what libtorch makes once
  std::uint64_t cases = 0;
  for (const int count : {2, 8, 12, 13, 16, 20, 24, 28, 40, 1000}) {
    const std::string keys = dict_of(colliding_ints(count));
    for (const std::string& pickle : {keys + ".", "}" + pickled("a") + keys + "s."}) {
      const Outcome outcome = load(pickle);
      EXPECT_LE(outcome.peak, 2 * kMiB) << count << " keys";
      if (count <= 8) {
        EXPECT_TRUE(outcome.state) << outcome.error->what();
      }
      if (count > 12) {
        ASSERT_TRUE(outcome.error) << count;
        EXPECT_EQ(outcome.error->code(), ErrorCode::damaged);
        EXPECT_THAT(outcome.error->what(), HasSubstr("keys are such that"));
      }
      ++cases;
    }
    // Where the state says what is wanted, too.
    StateDict wanted = make_state_dict();
    wanted.insert_or_assign("a", c10::IValue());
    EXPECT_LE(load("}" + pickled("a") + keys + "s.", wanted).peak, 2 * kMiB);
  }
  const std::vector<std::string> texts = colliding_texts(24);
  const Outcome outcome = load(dict_of(texts) + ".");
  EXPECT_LE(outcome.peak, 2 * kMiB);
  ASSERT_TRUE(outcome.error);
  EXPECT_THAT(outcome.error->what(), HasSubstr("keys are such that"));
  FaultRow{"damaged: keys that collide", cases + 1, 0, broken_expectations()}.report();
}

TEST_F(HostileFile, ManyDictsOfSomeCollidingKeysAreRefusedInTime) {
  // Each takes what a dict of its size may; all of them may not. Their keys are written once.
  std::string pickle = "}" + pickled("l") + "](";
  const std::vector<std::string> keys = colliding_ints(12);
  std::string first = "}(";
  std::string other = "}(";
  for (std::size_t i = 0; i < keys.size(); ++i) {
    first += keys[i] + "q" + little(i, 1) + "N";
    other += "h" + little(i, 1) + "N";
  }
  pickle += first + "u" + repeated(other + "u", 20000) + "es.";
  const Outcome outcome = load(pickle);
  ASSERT_TRUE(outcome.error);
  EXPECT_THAT(outcome.error->what(), HasSubstr("more than a pickle of"));
  EXPECT_LE(outcome.peak, 32 * pickle.size() + kMiB);
  EXPECT_LT(outcome.seconds, 20);
}

TEST_F(HostileFile, NoChoiceOfKeysMakesALoadSlow) {
  // Multiples of what the standard library's tables may have as their number of buckets.
  constexpr std::int64_t kBuckets = std::int64_t{107897} * 218971;
  constexpr std::int64_t kCount = 80000;
  std::string ints = "}(";
  StateDict state = make_state_dict();
  for (std::int64_t i = 0; i < kCount; ++i) {
    const std::int64_t key = i * kBuckets;
    ints += pickled(key) + "K\x01";
    state.insert_or_assign(key, 0);
  }
  const Outcome in_place = load(ints + "u.", state);
  ASSERT_TRUE(in_place.state) << in_place.error->what();
  EXPECT_LT(in_place.seconds, 5);
  EXPECT_EQ(state.at(kBuckets).toInt(), 1);
  EXPECT_LT(load(ints + "u.").seconds, 5);

  // Two long keys that differ at their ends, referred to again and again: in one dict, and in many.
  const std::string alike(kMiB, 'k');
  const std::string long_keys =
      pickled(alike + "a") + "q\x00"s + "0" + pickled(alike + "b") + "q\x01" + "0";
  EXPECT_LT(load(long_keys + "}(" + repeated("h\x00Nh\x01N"s, 200000) + "u.").seconds, 5);
  EXPECT_LT(
      load(long_keys + "}" + pickled("l") + "](" + repeated("}(h\x00Nh\x01Nu"s, 20000) + "es.")
          .seconds,
      5);
  // One below the other.
  std::string deep = long_keys;
  for (int i = 0; i < 500; ++i) deep += "}h\x00"s;
  EXPECT_LT(load(deep + "N" + repeated("s", 500) + ".").seconds, 5);
  // Keys of tensors, and of storages.
  const std::string storage =
      "(" + pickled("storage") + "ctorch\nFloatStorage\n" + "h\x00"s + pickled("cpu") + "K\x0ctQ";
  EXPECT_LT(load(long_keys + "}" + pickled("l") + "](" + repeated(storage, 100000) + "es.").seconds,
            5);
}

TEST_F(HostileFile, ALongShapeThatIsSharedMakesNoLoadSlow) {
  const std::string shape = "(" + repeated("K\x01", 200000) + "tq\x00"s + "0";
  const std::string storage = "(" + pickled("storage") + "ctorch\nByteStorage\n" + pickled("0") +
                              pickled("cpu") + "K\x01tQq\x01" + "0";
  const std::string tensor = "ctorch._utils\n_rebuild_tensor_v2\n(h\x01K\x00h\x00h\x00\x89"s +
                             "ccollections\nOrderedDict\n)RtR";
  write_archive(path_, "}.");
  const std::string pickle =
      shape + storage + "}" + pickled("l") + "](" + repeated(tensor, 5000) + "es.";
  const Outcome outcome = load(pickle);
  ASSERT_TRUE(outcome.error);
  EXPECT_LT(outcome.seconds, 5);
  EXPECT_LE(outcome.peak, 32 * pickle.size() + kMiB);
}

TEST_F(HostileFile, NamingAContradictionTakesNoMoreForMoreTensors) {
  // The parts of a flat tensor, the last of which differs from it.
  const auto allocated = [&](std::int64_t parts) {
    constexpr std::int64_t kSize = 400000;
    const auto part = [&](const at::Tensor& flat, std::int64_t i) {
      return flat.narrow(0, i * (kSize / parts), kSize / parts);
    };
    const at::Tensor saved = at::arange(kSize, c10::kFloat);
    const at::Tensor mine = at::zeros({kSize});
    StateDict file = make_state_dict();
    StateDict state = make_state_dict();
    for (std::int64_t i = 0; i < parts; ++i) {
      const std::string key = "part " + std::to_string(i);
      file.insert_or_assign(key, part(saved, i).clone());
      state.insert_or_assign(key, part(mine, i));
    }
    file.insert_or_assign("flat", saved.clone());
    file.at("flat").toTensor()[kSize - 1] = 0.5;
    state.insert_or_assign("flat", mine);
    const auto checkpointer = make_sync_checkpointer();
    checkpointer->save(directory_ / "parts", file).written.get();
    const AllocationMeter meter;
    std::string what = "none";
    try {
      (void)checkpointer->load(directory_ / "parts", state);
    } catch (const Error& error) {
      what = error.what();
    }
    const std::size_t total = meter.total();
    EXPECT_THAT(what, HasSubstr("key flat from"));
    EXPECT_THAT(what, HasSubstr("as part " + std::to_string(parts - 1) + ","));
    return total;
  };
  (void)allocated(1);
  const std::size_t few = allocated(10);
  EXPECT_LE(allocated(400), 2 * few);
}

/// {"a": {"x": a}, "b": {"x": b}}
StateDict pair_of(const at::Tensor& a, const at::Tensor& b) {
  StateDict state = make_state_dict();
  for (const auto& [key, tensor] : {std::pair("a", a), std::pair("b", b)}) {
    StateDict inner = make_state_dict();
    inner.insert_or_assign("x", tensor);
    state.insert_or_assign(key, inner);
  }
  return state;
}

/// A state for it in which both are one dict: what the file has must be the same.
StateDict one_for_both() {
  StateDict shared = make_state_dict();
  shared.insert_or_assign("x", c10::IValue());
  StateDict state = make_state_dict();
  state.insert_or_assign("a", shared);
  state.insert_or_assign("b", shared);
  return state;
}

TEST_F(HostileFile, RowsThatLieAcrossEachOtherAreComparedInTime) {
  // 14 million rows of 10,000 bytes in 7 million bytes.
  const std::vector<std::int64_t> sizes = {240, 240, 240, 10000};
  const std::vector<std::int64_t> strides = {10001, 10002, 10003, 1};
  const std::int64_t reach = 239 * (strides[0] + strides[1] + strides[2]) + 10000;
  const at::Tensor bytes = at::arange(reach, c10::kInt).remainder(251).to(c10::kByte);
  const auto checkpointer = make_sync_checkpointer();
  // Nowhere, in the first row, in the last one.
  for (const std::int64_t differs : {std::int64_t{-1}, std::int64_t{0}, reach - 1}) {
    const at::Tensor other = bytes.clone();
    if (differs >= 0) other[differs] = 255;
    const StateDict file =
        pair_of(bytes.as_strided(sizes, strides), other.as_strided(sizes, strides));
    checkpointer->save(directory_ / "rows", file).written.get();
    const StateDict state = one_for_both();
    std::string what;
    const double start = processor_seconds();
    try {
      (void)checkpointer->load(directory_ / "rows", state);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::mismatch);
      what = error.what();
    }
    EXPECT_LT(processor_seconds() - start, 10) << differs;
    const c10::IValue x = state.at("a").toGenericDict().at("x");
    if (differs < 0) {
      EXPECT_EQ(what, "");
      EXPECT_TRUE(x.toTensor().as_strided({reach}, {1}).equal(bytes));
    } else {
      EXPECT_THAT(what, HasSubstr("key b.x from"));
      EXPECT_THAT(what, HasSubstr("the same memory as a.x,"));
      EXPECT_TRUE(x.isNone());
    }
  }
}

TEST_F(HostileFile, DimensionsOfOneMakeNoComparisonSlow) {
  constexpr std::int64_t kElements = 2 * kMiB;
  std::vector<std::int64_t> sizes(30000, 1);
  sizes.front() = kElements;
  const auto shaped = [&](const at::Tensor& bytes, std::int64_t stride) {
    std::vector<std::int64_t> strides(sizes.size(), 1);
    strides.front() = stride;
    return bytes.as_strided(sizes, strides);
  };
  const at::Tensor bytes = at::arange(kElements, c10::kInt).remainder(251).to(c10::kByte);
  const auto checkpointer = make_sync_checkpointer();
  for (const bool differs : {false, true}) {
    // The same elements, at other distances.
    const at::Tensor other = bytes.repeat_interleave(2);
    if (differs) other[2 * (kElements - 1)] = 255;
    checkpointer->save(directory_ / "ones", pair_of(shaped(bytes, 1), shaped(other, 2)))
        .written.get();
    const StateDict state = one_for_both();
    std::string what;
    const double start = processor_seconds();
    try {
      (void)checkpointer->load(directory_ / "ones", state);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::mismatch);
      what = error.what();
    }
    EXPECT_LT(processor_seconds() - start, 10);
    if (differs) {
      EXPECT_THAT(what, HasSubstr("key b.x from"));
      EXPECT_THAT(what, HasSubstr("the same memory as a.x,"));
    } else {
      EXPECT_EQ(what, "");
      EXPECT_TRUE(state.at("b").toGenericDict().at("x").toTensor().view({kElements}).equal(bytes));
    }
  }
}

TEST_F(HostileFile, NoByteMakesMoreThanItsShare) {
  constexpr std::size_t kSize = 2 * kMiB;
  const std::string global = "cos\nsystem\nq\x00"s + "0";
  const std::vector<std::string> parts = {
      "}",     "]",    ")",     "N",       "K\x01", "U\0"s,     "]Na",       "}K\x01Ns",
      "N\x85", "(NNt", "c\n\n", "\x8a\0"s, "(l"s,   "h\x00)R"s, "h\x00)R2"s, "}(K\x01NK\x02Nu",
      "}}}",   "])]",  "N0",    "Nq\x01",
  };
  for (const std::string& part : parts) {
    for (const std::string& pickle :
         {"}" + pickled("l") + "](" + global + repeated(part, kSize / part.size()) + "es.",
          global + repeated(part, kSize / part.size()) + "."}) {
      const Outcome outcome = load(pickle);
      EXPECT_LE(outcome.peak, 64 * kMiB + (32 + 64 + 32) * pickle.size())
          << ::testing::PrintToString(part);
      EXPECT_LT(outcome.seconds, 20) << ::testing::PrintToString(part);
    }
  }
}

TEST_F(HostileFile, WhatValuesTakeIsKnownBeforeTheyAreMade) {
  const std::string tensor = "ctorch._utils\n_rebuild_tensor_v2\n(" +
                             ("(" + pickled("storage") + "ctorch\nByteStorage\n" + pickled("0") +
                              pickled("cpu") + "K\x01tQ") +
                             "K\x00K\x01\x85K\x01\x85\x89"s + "ccollections\nOrderedDict\n)RtR";
  std::string keys = "}(";
  for (int i = 0; i < 50000; ++i) keys += pickled("key " + std::to_string(i)) + "N";
  const std::vector<std::string> pickles = {
      list_of(repeated("}", 100000)),
      list_of(repeated("}K\x01Ns", 50000)),
      list_of(repeated("}(K\x01NK\x02NK\x03Nu", 20000)),
      list_of(repeated("]", 100000)),
      list_of(repeated("](NNNe", 50000)),
      list_of(repeated(")", 100000)),
      list_of(repeated("N\x85", 100000)),
      list_of(repeated("(NNNNNNt", 50000)),
      list_of(repeated("N", 1000000)),
      list_of(repeated("U\x01x", 200000)),
      list_of(repeated(tensor, 5000)),
      keys + "u.",
      dict_of(colliding_ints(12)) + ".",
  };
  (void)load("}.");
  for (const std::string& pickle : pickles) {
    write_archive(path_, pickle, {1});
    const auto source = store::open_file_source(path_);
    const std::uint64_t said = plan::PtArchive::open(*source).read_value(*source).value_bytes();
    const AllocationMeter meter;
    const LoadResult loaded = CheckpointReader().read(path_);
    // Strings are left out of it; they take little more than in the file.
    EXPECT_LE(meter.held(), said + 48 * pickle.size()) << pickle.substr(0, 40);
    EXPECT_GE(8 * meter.held() + kMiB, said) << pickle.substr(0, 40);
  }
}

TEST_F(HostileFile, LibtorchsDictIsAsLargeAsIsForeseen) {
  constexpr std::size_t kEntry = 56;
  std::vector<std::int64_t> plain;
  std::vector<std::int64_t> spread;
  for (std::int64_t i = 0; i < 3000; ++i) {
    plain.push_back(i);
    spread.push_back(i * 0x9E3779B9 + i * i * 7919);
  }
  std::vector<std::int64_t> colliding;
  for (std::uint64_t i = 0; i < 12; ++i) {
    colliding.push_back(static_cast<std::int64_t>(colliding_int(i)));
  }
  (void)make_state_dict();
  for (const std::vector<std::int64_t>& all : {plain, spread, colliding}) {
    for (std::size_t count = 1; count <= all.size(); count = count < 16 ? count + 1 : 2 * count) {
      std::vector<std::uint64_t> hashes;
      for (std::size_t i = 0; i < count; ++i) hashes.push_back(plan::dict_hash(all[i]));
      const std::uint64_t slots = plan::dict_slots(hashes).value();
      const AllocationMeter meter;
      StateDict dict = make_state_dict();
      dict.reserve(count);
      for (std::size_t i = 0; i < count; ++i) dict.insert_or_assign(all[i], c10::IValue());
      // The table, and what a dict has beside it.
      EXPECT_GE(meter.held(), kEntry * slots) << count;
      EXPECT_LE(meter.held(), kEntry * slots + 512) << count;
    }
  }
}

}  // namespace
}  // namespace ckptring::test
