// States as deep as they may be, loaded by a thread whose stack is small.
#include <ATen/Functions.h>
#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/core/ivalue.h>
#include <ckptring/error.h>
#include <ckptring/reader.h>

#include <cstddef>
#include <optional>
#include <string>

#include "load/files.h"
#include "plan/pickle_opcodes.h"
#include "support/small_stack.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ckptring::test {
namespace {

using c10::IValue;
using ::testing::HasSubstr;
using namespace std::string_literals;  // NUL bytes in pickles

const std::string kTensor = "ctorch._utils\n_rebuild_tensor_v2\n(" +
                            ("(" + pickled("storage") + "ctorch\nFloatStorage\n" + pickled("0") +
                             pickled("cpu") + "K\x02tQ") +
                            "K\x00K\x02\x85K\x01\x85\x89"s + "ccollections\nOrderedDict\n)RtR";

enum class Nest { dicts, lists, tuples, mixed };

/// A kind of container for each level below the root.
Nest kind_at(Nest nest, unsigned level) {
  return nest == Nest::mixed ? static_cast<Nest>(level % 3) : nest;
}

/// {"d": ...}, as deep as the one limit allows, around `leaf`.
std::string deep_pickle(Nest nest, const std::string& leaf) {
  std::string before = "}" + pickled("d");
  std::string after = "s.";
  for (unsigned level = 1; level < plan::kMaxDepth; ++level) {
    switch (kind_at(nest, level)) {
      case Nest::dicts:
        before += "}" + pickled("k");
        after.insert(0, "s");
        break;
      case Nest::lists:
        before += "]";
        after.insert(0, "a");
        break;
      default:
        after.insert(0, "\x85");
    }
  }
  return before + leaf + after;
}

/// The same as a state, around `leaf`.
StateDict deep_state(Nest nest, IValue leaf) {
  for (unsigned level = plan::kMaxDepth - 1; level > 0; --level) {
    switch (kind_at(nest, level)) {
      case Nest::dicts: {
        StateDict dict = make_state_dict();
        dict.insert_or_assign("k", leaf);
        leaf = dict;
        break;
      }
      case Nest::lists: {
        auto list = make_state_list();
        list.push_back(leaf);
        leaf = list;
        break;
      }
      default:
        leaf = c10::ivalue::Tuple::create(std::vector<IValue>{leaf});
    }
  }
  StateDict state = make_state_dict();
  state.insert_or_assign("d", leaf);
  return state;
}

IValue innermost(IValue value, unsigned levels) {
  for (; levels > 0; --levels) {
    value = value.isGenericDict() ? value.toGenericDict().begin()->value()
            : value.isList()      ? value.toListRef()[0]
                                  : value.toTupleRef().elements()[0];
  }
  return value;
}

class SmallStack : public ::testing::TestWithParam<Nest> {
 protected:
  void SetUp() override {
    write_archive(path_, "}" + pickled("w") + kTensor + "s.", {8});
    (void)CheckpointReader().read(path_);  // what libtorch makes once
  }
  void write(const std::string& leaf) { write_archive(path_, deep_pickle(GetParam(), leaf), {8}); }
  void load_on_small_stack(const std::optional<StateDict>& into,
                           std::optional<LoadResult>& result) {
    on_small_stack([&] { result = CheckpointReader().read(path_, into, {.threads = 1}); });
  }
  std::string error_on_small_stack(const std::optional<StateDict>& into) {
    std::optional<LoadResult> result;
    try {
      load_on_small_stack(into, result);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "file.pt";
};
INSTANTIATE_TEST_SUITE_P(Nests, SmallStack,
                         ::testing::Values(Nest::dicts, Nest::lists, Nest::tuples, Nest::mixed));

TEST_P(SmallStack, TheDeepestStateIsLoaded) {
  write(kTensor);
  std::optional<LoadResult> result;
  load_on_small_stack({}, result);
  EXPECT_EQ(innermost(IValue(result->state), plan::kMaxDepth).toTensor().numel(), 2);
}

TEST_P(SmallStack, TheDeepestStateIsFilledInPlace) {
  write(kTensor);
  const at::Tensor mine = at::zeros({2});
  const StateDict state = deep_state(GetParam(), mine);
  std::optional<LoadResult> result;
  load_on_small_stack(state, result);
  EXPECT_NE(mine[0].item().toFloat(), 0);
  // A number, for which all tuples on the way are replaced.
  write("K\x07");
  const StateDict number = deep_state(GetParam(), 5);
  load_on_small_stack(number, result);
  EXPECT_EQ(innermost(IValue(number), plan::kMaxDepth).toInt(), 7);
  // And all of it from the file.
  StateDict none = make_state_dict();
  none.insert_or_assign("d", IValue());
  load_on_small_stack(none, result);
  EXPECT_EQ(innermost(IValue(none), plan::kMaxDepth).toInt(), 7);
}

TEST_P(SmallStack, TheDeepestErrorIsNamed) {
  // In the pickle, in the state, and once everything was made.
  std::string without_record = kTensor;
  without_record.replace(without_record.find(pickled("0")), pickled("0").size(), pickled("9"));
  write(without_record);
  EXPECT_THAT(error_on_small_stack({}), HasSubstr("record data/9 is missing"));
  write(kTensor);
  EXPECT_THAT(error_on_small_stack(deep_state(GetParam(), 5)), HasSubstr("a tensor in the file"));
  write("cos\nsystem\n");
  EXPECT_THAT(error_on_small_stack({}), HasSubstr("the Python object os.system"));
  write(kTensor);
  const std::string bytes = [&] {
    std::ifstream in(path_, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }();
  const Bytes payload = pattern(8, 1);
  const std::size_t at = bytes.find(std::string(reinterpret_cast<const char*>(payload.data()), 8));
  ASSERT_NE(at, std::string::npos);
  std::fstream(path_, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(at))
      .put(static_cast<char>(bytes[at] ^ 1));
  EXPECT_THAT(error_on_small_stack({}), HasSubstr("CRC-32"));
}

}  // namespace
}  // namespace ckptring::test
