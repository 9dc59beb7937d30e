// The small vocabulary: dtypes, text, key paths, tensor bounds, the ckptring.json record.
#include "plan/checkpoint_json.h"
#include "plan/dtype.h"
#include "plan/key_tree.h"
#include "plan/tensor_bounds.h"
#include "plan/utf8.h"

#include <ckptring/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace ckptring::plan {
namespace {

using ::testing::HasSubstr;

TEST(DType, EveryNameLeadsBackToItsDType) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    names.insert(name(dtype));
    EXPECT_EQ(dtype_from_name(name(dtype)), dtype);
    if (!typed_storage_name(dtype).empty()) {
      EXPECT_EQ(dtype_from_typed_storage(typed_storage_name(dtype)), dtype);
    }
  }
  EXPECT_EQ(names.size(), kDTypeCount);
  EXPECT_FALSE(dtype_from_name("float42"));
  EXPECT_FALSE(dtype_from_typed_storage(""));
}

TEST(Utf8, AcceptsWhatUnicodeDefines) {
  for (const char* text : {"", "plain", "eight123", "nine12345", "h\xc3\xa9", "\xe2\x82\xac",
                           "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "12345678\xc3\xa9"}) {
    EXPECT_TRUE(is_utf8(text)) << text;
  }
  EXPECT_TRUE(is_utf8(std::string_view("a\0b", 3)));
}

TEST(Utf8, RefusesWhatIsNotText) {
  for (const char* text : {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80",
                           "\xf4\x90\x80\x80", "\xff", "12345678\xe2\x82", "\xf0\x80\x80\x80"}) {
    EXPECT_FALSE(is_utf8(text)) << testing::PrintToString(text);
  }
}

TEST(KeyTree, APathReadsAsOneWouldWriteIt) {
  KeyTree tree;
  EXPECT_EQ(tree.path(KeyTree::kRoot), "(the whole state)");
  std::string gone = "a";
  const KeyTree::Node a = tree.add(KeyTree::kRoot, KeyStep::of(gone));
  gone = "x";
  const KeyTree::Node b = tree.add_borrowed(a, KeyStep::of("b"));
  const KeyTree::Node item = tree.add(b, KeyStep::at(0));
  EXPECT_EQ(tree.path(a), "a");
  EXPECT_EQ(tree.path(item), "a.b[0]");
  EXPECT_EQ(tree.path(item, KeyStep::of_key(-7)), "a.b[0].-7");
  EXPECT_EQ(tree.path(KeyTree::kRoot, KeyStep::at(3)), "[3]");
}

TEST(KeyTree, APathThatNobodyWouldReadLeavesOutItsMiddle) {
  KeyTree tree;
  const std::string longest(999, 'k');
  const std::string longer = longest + "\xc3\xa9";  // cut off before the character, not in it
  EXPECT_EQ(tree.path(KeyTree::kRoot, KeyStep::of(longer)), longest + "...");
  KeyTree::Node node = tree.add(KeyTree::kRoot, KeyStep::of("first"));
  for (int i = 0; i < 500; ++i) node = tree.add_borrowed(node, KeyStep::of(longest));
  const std::string path = tree.path(node, KeyStep::of("last"));
  EXPECT_LT(path.size(), 7000U);
  EXPECT_THAT(path, ::testing::StartsWith("first.kkk"));
  EXPECT_THAT(path, ::testing::EndsWith("kkk.last"));
  EXPECT_THAT(path, HasSubstr("....kkk"));
}

TEST(KeyTree, AWholePathLeavesOutNothing) {
  KeyTree tree;
  EXPECT_EQ(tree.whole_path(KeyTree::kRoot), "(the whole state)");
  const std::string longest(5000, 'k');
  KeyTree::Node node = tree.add(KeyTree::kRoot, KeyStep::of_key(7));
  std::string expected = "7";
  for (int i = 0; i < 20; ++i) {
    node = tree.add(tree.add_borrowed(node, KeyStep::of(longest)), KeyStep::at(3));
    expected += "." + longest + "[3]";
  }
  EXPECT_EQ(tree.whole_path(node), expected);
}

struct Shaped {
  std::int64_t offset;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
  std::uint64_t storage_bytes = 48;
  bool conj = false;

  [[nodiscard]] std::optional<std::string> problem() const {
    return tensor_problem({DType::float32, storage_bytes, offset, sizes, strides, conj});
  }
};

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

TEST(TensorBounds, AcceptsEveryViewThatLiesInItsStorage) {
  const auto problem = [](const Shaped& shaped) { return shaped.problem(); };
  EXPECT_FALSE(problem({0, {3, 4}, {4, 1}}));
  EXPECT_FALSE(problem({11, {}, {}}));
  EXPECT_FALSE(problem({0, {4, 3}, {1, 4}})) << "transposed";
  EXPECT_FALSE(problem({5, {1000}, {0}})) << "expanded";
  EXPECT_FALSE(problem({0, {1}, {kMax}})) << "one element, any stride";
  EXPECT_FALSE(problem({99, {0}, {1}, 0})) << "empty";
  EXPECT_EQ(tensor_bytes(DType::float32, std::vector<std::int64_t>{3, 4}), 48U);
}

TEST(TensorBounds, NamesWhatIsWrong) {
  const auto problem = [](const Shaped& shaped) { return shaped.problem().value_or(""); };
  EXPECT_THAT(problem({0, {13}, {1}}), HasSubstr("number 12 of a storage of 12"));
  EXPECT_THAT(problem({1, {3, 4}, {4, 1}}), HasSubstr("last element"));
  EXPECT_THAT(problem({12, {}, {}}), HasSubstr("last element"));
  EXPECT_THAT(problem({-1, {1}, {1}}), HasSubstr("offset is -1"));
  EXPECT_THAT(problem({0, {-1}, {1}}), HasSubstr("size 0 is -1"));
  EXPECT_THAT(problem({0, {0, -1}, {1, 1}}), HasSubstr("size 1 is -1"));
  EXPECT_THAT(problem({0, {1}, {-1}}), HasSubstr("stride 0 is -1"));
  EXPECT_THAT(problem({0, {1}, {}}), HasSubstr("1 sizes and 0 strides"));
  EXPECT_THAT(problem({0, {kMax, kMax}, {0, 0}}), HasSubstr("overflows"));
  EXPECT_THAT(problem({0, {2, 2}, {kMax, kMax}}), HasSubstr("overflows"));
  EXPECT_THAT(problem({kMax, {2}, {1}}), HasSubstr("overflows"));
  EXPECT_THAT(problem({0, {1}, {1}, 48, true}), HasSubstr("conjugated"));
}

ErrorCode code_of(const std::string& json) {
  try {
    from_json(json, "/file.pt");
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::ok;
}

TEST(CheckpointJson, GivesBackWhatWasPutIn) {
  const Metadata metadata{{"flag", true},
                          {"count", std::int64_t{-5}},
                          {"big", std::numeric_limits<std::int64_t>::max()},
                          {"loss", 1.0},
                          {"minus zero", -0.0},
                          {"third", 1.0 / 3},
                          {"name", std::string("h\xc3\xa9 \"quoted\"\n")},
                          {"best", std::numeric_limits<double>::infinity()},
                          {"worst", -std::numeric_limits<double>::infinity()}};
  const auto id = save_id_from("00ff17a0b3c4d5e6f708192a3b4c5d6e");
  ASSERT_TRUE(id);
  const CheckpointInfo info = from_json(
      to_json({{.global_rank = 3, .global_world_size = 8}, 100, metadata, id}), "/file.pt");
  EXPECT_EQ(info.path, "/file.pt");
  EXPECT_EQ(info.format_version, kFormatVersion);
  EXPECT_EQ(info.rank, 3);
  EXPECT_EQ(info.world_size, 8);
  EXPECT_EQ(info.step, 100);
  EXPECT_EQ(info.metadata, metadata);
  EXPECT_EQ(info.save_id, id);
  EXPECT_TRUE(std::signbit(std::get<double>(info.metadata.at("minus zero"))));

  const CheckpointInfo bare = from_json(to_json({}), "/file.pt");
  EXPECT_EQ(bare.step, std::nullopt);
  EXPECT_EQ(bare.save_id, std::nullopt);
  EXPECT_TRUE(bare.metadata.empty());
}

TEST(CheckpointJson, KeepsNotANumber) {
  const CheckpointInfo info = from_json(to_json({{}, {}, {{"loss", std::nan("")}}}), "/file.pt");
  EXPECT_TRUE(std::isnan(std::get<double>(info.metadata.at("loss"))));
}

TEST(CheckpointJson, IsTheSameTextForTheSameFacts) {
  EXPECT_EQ(to_json({{}, 7, {{"b", true}, {"a", 1.5}}}),
            "{\"format_version\":1,\"metadata\":{\"a\":1.5,\"b\":true},\"rank\":0,\"step\":7,"
            "\"world_size\":1}\n");
  EXPECT_EQ(to_json({.save_id = SaveId{{1, 2, 0xab}}}),
            "{\"format_version\":1,\"metadata\":{},\"rank\":0,"
            "\"save_id\":\"0102ab00000000000000000000000000\",\"world_size\":1}\n");
}

TEST(CheckpointJson, ASaveIdThatIsNoneIsDamage) {
  const std::string digits(32, 'a');
  const auto with = [](const std::string& id) {
    return R"({"format_version":1,"rank":0,"world_size":1,"save_id":)" + id + "}";
  };
  EXPECT_EQ(code_of(with('"' + digits + '"')), ErrorCode::ok);
  for (const std::string& odd :
       {std::string("7"), std::string("null"), std::string("[]"), '"' + digits.substr(1) + '"',
        '"' + digits + "a\"", '"' + digits.substr(1) + "A\"", '"' + digits.substr(1) + "g\""}) {
    EXPECT_EQ(code_of(with(odd)), ErrorCode::damaged) << odd;
  }
  EXPECT_EQ(code_of(with("7,\"save_id\":\"" + digits + '"')), ErrorCode::ok) << "the last counts";
}

TEST(CheckpointJson, OfEqualKeysTheLastOneCounts) {
  const CheckpointInfo info =
      from_json(R"({"rank":[],"rank":1,"metadata":7,"metadata":{"a":1},"metadata":{"b":1,"b":"x"},)"
                R"("world_size":4,"world_size":3,"format_version":1,"step":"x","step":9})",
                "/file.pt");
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.world_size, 3);
  EXPECT_EQ(info.step, 9);
  EXPECT_EQ(info.metadata, (Metadata{{"b", std::string("x")}}));
}

TEST(CheckpointJson, OfEqualKeysTheLastOneCountsWhateverTheOthersHold) {
  const auto metadata_of = [](const std::string& metadata) -> std::string {
    try {
      const CheckpointInfo info =
          from_json(R"({"format_version":1,"rank":0,"world_size":1,)" + metadata + "}", "/file.pt");
      std::string keys;
      for (const auto& [key, value] : info.metadata) keys += key + " ";
      return keys;
    } catch (const Error& error) {
      return error.cause();
    }
  };
  // One that does not count.
  for (const char* odd : {"[1]", "null", R"({"b":{}})", R"({"float":"many"})", R"([{"a":[[]]}])",
                          R"({"float":[[]]})", "18446744073709551615"}) {
    const std::string first = std::string(R"("metadata":{"a":)") + odd;
    EXPECT_EQ(metadata_of(first + R"(},"metadata":{"b":1})"), "b ") << odd;
    EXPECT_EQ(metadata_of(first + R"(,"a":1})"), "a ") << odd;
    EXPECT_EQ(metadata_of(first + R"(,"b":true,"a":{"float":"nan"}})"), "a b ") << odd;
    // One that does.
    const std::string refused =
        "record ckptring.json: metadata \"a\" is neither bool, integer, "
        "float nor string";
    EXPECT_EQ(metadata_of(R"("metadata":{"b":1},)" + first + "}"), refused) << odd;
    EXPECT_EQ(metadata_of(R"("metadata":{"a":1,"b":1,"a":)" + std::string(odd) + "}"), refused)
        << odd;
    EXPECT_EQ(metadata_of(first + R"(,"b":null,"b":2})"), refused) << odd;
  }
  EXPECT_EQ(metadata_of(R"("metadata":[[{"a":null}]],"metadata":{"b":1})"), "b ");
  EXPECT_EQ(metadata_of(R"("metadata":{"b":1},"metadata":[1])"),
            "record ckptring.json: metadata is not an object");
}

TEST(CheckpointJson, NestedDeeperThanAllowedIsDamage) {
  const auto nested = [](int levels) {
    const auto count = static_cast<std::size_t>(levels - 1);  // within the outermost object
    return R"({"format_version":1,"rank":0,"world_size":1,"x":)" + std::string(count, '[') +
           std::string(count, ']') + "}";
  };
  EXPECT_EQ(code_of(nested(kMaxJsonDepth)), ErrorCode::ok);
  EXPECT_EQ(code_of(nested(kMaxJsonDepth + 1)), ErrorCode::damaged);
}

TEST(CheckpointJson, RefusesTextThatIsNotUtf8) {
  EXPECT_THROW((void)to_json({{}, {}, {{"k", std::string("\xff")}}}), Error);
  EXPECT_THROW((void)to_json({{}, {}, {{"\xff", true}}}), Error);
}

TEST(CheckpointJson, OfANewerFormatNamesBothVersions) {
  try {
    from_json(R"({"format_version": 2, "rank": "changed"})", "/file.pt");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::newer_format);
    EXPECT_THAT(error.what(), HasSubstr("version 2"));
    EXPECT_THAT(error.what(), HasSubstr("version 1"));
    EXPECT_THAT(error.what(), HasSubstr("/file.pt"));
  }
}

TEST(CheckpointJson, OfANewerFormatIsNamedWhateverItHolds) {
  for (const char* more : {R"("metadata":{"a":[1,{"b":[]}],"c":{"d":{"e":{}}}})", R"("rank":[[]])",
                           R"("new":{"a":[1,{"b":2}]})", R"("metadata":[])"}) {
    EXPECT_EQ(code_of(std::string("{") + more + R"(,"format_version":2})"), ErrorCode::newer_format)
        << more;
  }
}

TEST(CheckpointJson, KeysThatAreNotKnownAreIgnoredWhateverTheyHold) {
  const CheckpointInfo info = from_json(
      R"({"a":{"metadata":{"x":[]},"rank":7},"b":[[1],{"c":[]}],"format_version":1,"rank":0,)"
      R"("metadata":{"m":{"float":"inf"},"n":1},"world_size":2,"z":"text"})",
      "/file.pt");
  EXPECT_EQ(info.world_size, 2);
  EXPECT_EQ(info.metadata.size(), 2U);
  EXPECT_EQ(std::get<double>(info.metadata.at("m")), std::numeric_limits<double>::infinity());
}

TEST(CheckpointJson, ThatIsWrongIsDamaged) {
  const std::string good = R"("format_version":1,"rank":0,"world_size":1)";
  EXPECT_EQ(code_of("{" + good + "}"), ErrorCode::ok);
  for (const std::string& json :
       {std::string(), std::string("{"), std::string("[]"), std::string("{}"),
        std::string(R"({"format_version":"1","rank":0,"world_size":1})"),
        std::string(R"({"format_version":0,"rank":0,"world_size":1})"),
        std::string(R"({"format_version":1,"rank":-1,"world_size":1})"),
        std::string(R"({"format_version":1,"rank":1,"world_size":1})"),
        std::string(R"({"format_version":1,"rank":0,"world_size":99999999999})"),
        std::string(R"({"format_version":18446744073709551615,"rank":0,"world_size":1})"),
        "{" + good + R"(,"step":1.5})", "{" + good + R"(,"step":9223372036854775808})",
        "{" + good + R"(,"metadata":[]})", "{" + good + R"(,"metadata":{"a":null}})",
        "{" + good + R"(,"metadata":{"a":{"float":"many"}}})", std::string(100000, '[')}) {
    EXPECT_EQ(code_of(json), ErrorCode::damaged) << json.substr(0, 100);
  }
}

}  // namespace
}  // namespace ckptring::plan
