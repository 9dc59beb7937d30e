#include "plan/pickle_reader.h"

#include "plan/pickle_opcodes.h"
#include "plan/show.h"

#include <ckptring/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::plan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using namespace std::string_literals;  // NUL bytes in pickles

std::vector<std::byte> bytes_of(const std::string& pickle) {
  const auto bytes = std::as_bytes(std::span(pickle));
  return {bytes.begin(), bytes.end()};
}

Document read(const std::string& pickle) { return read_pickle(bytes_of(pickle), "/file.pt"); }

std::string shown(const std::string& pickle) { return show(read(pickle)); }

/// The words of the error that reading it ends with, after its code.
std::string error(const std::string& pickle) {
  try {
    const std::string value = shown(pickle);
    return "none: " + value;
  } catch (const Error& thrown) {
    return std::string(to_string(thrown.code())) + ": " + thrown.what();
  }
}

std::string text(std::string_view characters) {
  std::string out = "X";
  for (int i = 0; i < 4; ++i) out += static_cast<char>(characters.size() >> (8 * i));
  return out.append(characters);
}

std::string repeated(const std::string& part, unsigned times) {
  std::string out;
  for (unsigned i = 0; i < times; ++i) out += part;
  return out;
}

const std::string kStorage =
    "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "K\x0ctQ";
const std::string kHooks = "ccollections\nOrderedDict\n)R";
const std::string kV2 = "ctorch._utils\n_rebuild_tensor_v2\n";
const std::string kV3 = "ctorch._utils\n_rebuild_tensor_v3\n";
const std::string kTensor =
    kV2 + "(" + kStorage + "K\x01K\x02K\x03\x86K\x04K\x01\x86\x89" + kHooks + "tR";

TEST(PickleReader, ReadsPlainValues) {
  EXPECT_EQ(shown("\x80\x02N."), "None");
  EXPECT_EQ(shown("(\x88\x89t."), "(True, False)");
  EXPECT_EQ(shown("K\xff."), "255");
  EXPECT_EQ(shown("M\xff\xff."), "65535");
  EXPECT_EQ(shown("J\xff\xff\xff\xff."), "-1");
  EXPECT_EQ(shown("\x8a\x00."s), "0");
  EXPECT_EQ(shown("\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80."s), "-9223372036854775808");
  EXPECT_EQ(shown("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00."s), "9223372036854775807");
  EXPECT_EQ(shown("\x8b\x01\x00\x00\x00\xfe."s), "-2");
  EXPECT_EQ(shown("G\x3f\xf8\x00\x00\x00\x00\x00\x00."s), "1.5");
  EXPECT_EQ(shown(text("h\xc3\xa9") + "."), "'h\xc3\xa9'");
  EXPECT_EQ(shown("U\x02hi."), "'hi'");
  EXPECT_EQ(shown("T\x02\x00\x00\x00hi."s), "'hi'");
}

TEST(PickleReader, ReadsContainers) {
  EXPECT_EQ(shown(")."), "()");
  EXPECT_EQ(shown("K\x01\x85."), "(1)");
  EXPECT_EQ(shown("K\x01K\x02\x86."), "(1, 2)");
  EXPECT_EQ(shown("K\x01K\x02K\x03\x87."), "(1, 2, 3)");
  EXPECT_EQ(shown("]."), "[]");
  EXPECT_EQ(shown("]K\x01\x61K\x02\x61."), "[1, 2]");
  EXPECT_EQ(shown("](K\x01](K\x02\x65\x65."), "[1, [2]]");
  EXPECT_EQ(shown("}(" + text("a") + "K\x01K\x07}" + text("b") + "Nsu."),
            "{'a': 1, 7: {'b': None}}");
}

TEST(PickleReader, TheLastOfEqualKeysGivesTheValueAndTheFirstThePlace) {
  EXPECT_EQ(shown("}(" + text("a") + "K\x01" + text("b") + "K\x02" + text("a") + "K\x03K\x05K\x04" +
                  "K\x05K\x06u."),
            "{'a': 3, 'b': 2, 5: 6}");
}

TEST(PickleReader, OrderedDictsAreDictsAndTheirAttributesAreNotState) {
  const std::string dict = "ccollections\nOrderedDict\n)R";
  EXPECT_EQ(shown(dict + text("a") + "K\x01s."), "{'a': 1}");
  EXPECT_EQ(shown(dict + "(" + text("a") + "K\x01u}" + text("_metadata") + dict + "sb."),
            "{'a': 1}");
  EXPECT_EQ(shown("ccollections\nOrderedDict\n](" + text("a") + "K\x01\x86](" + text("b") +
                  "K\x02\x65\x65\x85R."),
            "{'a': 1, 'b': 2}");
}

TEST(PickleReader, SharedContainersStaySharedAfterReading) {
  const Document document = read("(]q\x00K\x01\x61h\x00](K\x01\x65t."s);
  const auto items = std::get<Tuple>(document.root().data);
  const auto id = [&](std::size_t index) { return std::get<List>(items[index].data).id(); };
  EXPECT_EQ(id(0), id(1));
  EXPECT_NE(id(0), id(2));
  EXPECT_NE(id(0), items.id());
  EXPECT_EQ(show(document), "([1], [1], [1])");
}

TEST(PickleReader, ReadsTensorsOfBothVersions) {
  EXPECT_EQ(shown(kTensor + "."), "float32@0+1(2,3|4,1)");
  const std::string untyped = "(" + text("storage") + "ctorch.storage\nUntypedStorage\n" +
                              text("7") + text("cuda:1") + "K\x06tQ";
  const Document document =
      read(kV3 + "(" + untyped + "K\x00K\x03\x85K\x01\x85\x89"s + kHooks + "ctorch\nuint16\ntR.");
  EXPECT_EQ(show(document), "uint16@7+0(3|1)");
  const auto tensor = std::get<Tensor>(document.root().data);
  EXPECT_EQ(tensor.storage_bytes(), 6U);
  EXPECT_EQ(tensor.location(), "cuda:1");
  EXPECT_EQ(std::get<Tensor>(read(kTensor + ".").root().data).storage_bytes(), 48U);
}

TEST(PickleReader, KeepsGradConjugateAndNegativeBits) {
  const std::string complex_storage =
      "(" + text("storage") + "ctorch\nComplexFloatStorage\n" + text("0") + text("cpu") + "K\x02tQ";
  EXPECT_EQ(shown(kV2 + "(" + complex_storage + "K\x00))\x88"s + kHooks + "}(" + text("conj") +
                  "\x88" + text("neg") + "\x88utR."),
            "complex64@0+0(|)gcn");
}

TEST(PickleReader, ParametersAreTensors) {
  const std::string parameter = "ctorch._utils\n_rebuild_parameter\n";
  EXPECT_EQ(shown(parameter + kTensor + "\x88" + kHooks + "\x87R."), "float32@0+1(2,3|4,1)g");
  const std::string with_state =
      "ctorch._utils\n_rebuild_parameter_with_state\n(" + kTensor + "\x88" + kHooks;
  EXPECT_EQ(shown(with_state + "}tR."), "float32@0+1(2,3|4,1)g");
  EXPECT_EQ(shown(with_state + "}" + text("a") + "NstR."), "<a parameter with Python attributes>");
}

TEST(PickleReader, TensorsOfATypeAreTensorsIfPlain) {
  const std::string arguments = "(" + kStorage + "K\x00))\x89"s + kHooks + "t";
  const auto typed = [&](const std::string& type, const std::string& state) {
    return "ctorch._tensor\n_rebuild_from_type_v2\n(" + kV2 + type + arguments + state + "tR.";
  };
  EXPECT_EQ(shown(typed("ctorch\nTensor\n", "}")), "float32@0+0(|)");
  EXPECT_EQ(shown(typed("ctorch\nTensor\n", "}" + text("a") + "Ns")),
            "<a tensor with Python attributes>");
  EXPECT_EQ(shown(typed("cmine\nSpecial\n", "}")), "<a tensor of class mine.Special>");
}

TEST(PickleReader, ASizeIsATuple) { EXPECT_EQ(shown("ctorch\nSize\nK\x02\x85\x85R."), "(2)"); }

TEST(PickleReader, NamesWhatHasNoCounterpart) {
  EXPECT_EQ(shown("c_codecs\nencode\n" + text("x") + text("latin1") + "\x86R."), "<bytes>");
  EXPECT_EQ(shown("c__builtin__\nset\n]\x85R."), "<a set>");
  EXPECT_EQ(shown("c__builtin__\ncomplex\n)R."), "<a complex number>");
  EXPECT_EQ(shown("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00."s),
            "<an integer of more than 64 bits>");
  EXPECT_EQ(shown("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xff."s),
            "<an integer of more than 64 bits>");
  EXPECT_EQ(shown("cfoo\nBar\n)\x81."), "<an object of class foo.Bar>");
  EXPECT_EQ(shown("cfoo\nBar\n)\x81}" + text("x") + "K\x01sb."), "<an object of class foo.Bar>");
  EXPECT_EQ(shown("cfoo\nmake\n)R."), "<an object made by foo.make>");
  EXPECT_EQ(shown("cfoo\nmake\n)RK\x01\x61."), "<an object made by foo.make>")
      << "a list of theirs";
  EXPECT_EQ(shown("cfoo\nmake\n)RK\x01Ns."), "<an object made by foo.make>") << "a dict of theirs";
  EXPECT_EQ(shown("ccopy_reg\n_reconstructor\n(cfoo\nBar\nc__builtin__\nobject\nNtR."),
            "<an object of class foo.Bar>");
  EXPECT_EQ(shown("ctorch\nfloat32\n."), "<the Python object torch.float32>");
  EXPECT_EQ(shown(text("\xff") + "."), "<a string that is not UTF-8>");
  EXPECT_EQ(shown(kStorage + "."), "<a storage without a tensor>");
  EXPECT_EQ(shown(kTensor + "}b."), "<a tensor with Python state>");
  const std::string quantized =
      "(" + text("storage") + "ctorch\nQInt8Storage\n" + text("0") + text("cpu") + "K\x02tQ";
  EXPECT_EQ(shown("ctorch._utils\n_rebuild_qtensor\n(" + quantized + "tR."),
            "<a quantized tensor>");
  EXPECT_EQ(shown(kV2 + "(" + quantized + "K\x00))\x89"s + kHooks + "tR."),
            "<a storage of type torch.QInt8Storage>");
  EXPECT_EQ(shown(kV3 + "(" + kStorage + "K\x00))\x89"s + kHooks + "ctorch\nfloat3\ntR."),
            "<a tensor of torch.float3>");
}

TEST(PickleReader, AKeyThatHasNoCounterpartDoesNotHideTheOthers) {
  EXPECT_EQ(shown("}(\x88K\x01" + text("a") + "K\x02G\x3f\xf8\x00\x00\x00\x00\x00\x00K\x03"s +
                  "K\x07K\x04NK\x05)K\x06" + text("\xff") + "K\x07\x89K\x08\x88K\x09u."),
            "{<True>: 9, 'a': 2, <1.5>: 3, 7: 4, <None>: 5, <a tuple>: 6, "
            "<a string that is not UTF-8>: 7, <False>: 8}");
  const Document document = read("}(\x88K\x01" + text("a") + "K\x02K\x01K\x03u.");
  const auto dict = std::get<Dict>(document.root().data);
  EXPECT_EQ(show(dict.find("a").value()), "2");
  EXPECT_EQ(show(dict.find(1).value()), "3");
  EXPECT_FALSE(dict.find("True"));
  EXPECT_FALSE(dict.find(0));
}

TEST(PickleReader, EveryKeyIsFound) {
  std::string pickle = "}(";
  for (int i = 0; i < 200; ++i) {
    const int key = i * 37 % 200;
    pickle += std::string("K") + static_cast<char>(key) + "K\x01" +
              text("k" + std::to_string(key)) + "K\x02";
  }
  for (const std::int64_t extreme : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::min()}) {
    pickle += "\x8a\x08";
    for (int i = 0; i < 8; ++i) pickle += static_cast<char>(extreme >> (8 * i));
    pickle += "K\x03";
  }
  const Document document = read(pickle + "u.");
  const auto dict = std::get<Dict>(document.root().data);
  for (int key = 0; key < 200; ++key) {
    EXPECT_EQ(show(dict.find(key).value()), "1");
    EXPECT_EQ(show(dict.find("k" + std::to_string(key)).value()), "2");
  }
  EXPECT_EQ(show(dict.find(-1).value()), "3");
  EXPECT_EQ(show(dict.find(std::numeric_limits<std::int64_t>::min()).value()), "3");
  EXPECT_FALSE(dict.find(200));
  EXPECT_FALSE(dict.find(std::numeric_limits<std::int64_t>::max()));
  EXPECT_FALSE(dict.find(""));
  EXPECT_FALSE(dict.find("k"));
  EXPECT_FALSE(dict.find("z"));
}

TEST(PickleReader, ListsAndDictsMayBeFilledInTurns) {
  // Two of each, an item here and an item there.
  std::string pickle = "(]q\x00]q\x01}q\x02}q\x03"s;
  for (char i = 1; i <= 3; ++i) {
    for (char list = 0; list < 2; ++list) pickle += "h"s + list + "K" + i + "\x61" + "0";
    for (char dict = 2; dict < 4; ++dict) pickle += "h"s + dict + "K" + i + "K" + i + "s0";
  }
  EXPECT_EQ(shown(pickle + "t."), "([1, 2, 3], [1, 2, 3], {1: 1, 2: 2, 3: 3}, {1: 1, 2: 2, 3: 3})");
}

TEST(PickleReader, WhatHasNoCounterpartDoesNotHideTheRest) {
  EXPECT_EQ(shown("}(" + text("a") + "K\x01" + text("b") + "c__builtin__\nset\n]\x85Ru."),
            "{'a': 1, 'b': <a set>}");
}

TEST(PickleReader, ReadsARecursiveTupleAsPythonWritesIt) {
  // Python pops what it built when it finds that the tuple was built meanwhile.
  EXPECT_EQ(shown("(K\x01K\x02\x31)."), "()");
  EXPECT_EQ(shown("K\x01K\x02\x30."), "1");
  EXPECT_EQ(shown("(K\x01\x30\x30K\x02."), "2");
  EXPECT_EQ(shown("K\x01\x32\x86."), "(1, 1)");
}

TEST(PickleReader, DamageIsNamedWithItsPlace) {
  EXPECT_THAT(error(""), AllOf(HasSubstr("damaged: read /file.pt: record data.pkl, byte 0"),
                               HasSubstr("ends in the middle")));
  EXPECT_THAT(error("\x80"), HasSubstr("ends in the middle"));
  EXPECT_THAT(error("N"), HasSubstr("ends in the middle"));
  EXPECT_THAT(error("."), HasSubstr("0 values are left"));
  EXPECT_THAT(error("NN."), HasSubstr("2 values are left"));
  EXPECT_THAT(error("N.N"), HasSubstr("bytes follow the end"));
  EXPECT_THAT(error("N\x01."), HasSubstr("unknown opcode 0x01"));
  EXPECT_THAT(error("X\xff\xff\xff\xffhi."), HasSubstr("byte 0: the pickle ends"));
  EXPECT_THAT(error("T\xff\xff\xff\xffhi."), HasSubstr("negative length"));
  EXPECT_THAT(error("\x8b\xff\xff\xff\xff."), HasSubstr("negative length"));
  EXPECT_THAT(error("\x8b\xff\xff\xff\x7f."), HasSubstr("ends in the middle"));
  EXPECT_THAT(error("t."), HasSubstr("a mark is missing"));
  EXPECT_THAT(error("\x85."), HasSubstr("a value is missing"));
  EXPECT_THAT(error("N(\x86."), HasSubstr("a value is missing")) << "below a mark";
  EXPECT_THAT(error("\x61."), HasSubstr("a value is missing"));
  EXPECT_THAT(error("}(Nu."), HasSubstr("a key has no value"));
  EXPECT_THAT(error("NN\x61."), HasSubstr("appended to None"));
  EXPECT_THAT(error("NNNs."), HasSubstr("set in None"));
  EXPECT_THAT(error("h\x00."s), HasSubstr("memo number 0 was never set"));
  EXPECT_THAT(error("Nr\xff\xff\xff\xff."), HasSubstr("out of range"));
  EXPECT_THAT(error("NQ."), HasSubstr("no tuple"));
  EXPECT_THAT(error(")Q."), HasSubstr("does not describe a storage"));
  EXPECT_THAT(error("N)R."), HasSubstr("a call of None"));
  EXPECT_THAT(error("cfoo\nbar\nNR."), HasSubstr("without a tuple"));
  EXPECT_THAT(error("cfoo\nbar"), HasSubstr("a name has no end"));
  EXPECT_THAT(error("]}b."), HasSubstr("attributes are set on a list"));
}

TEST(PickleReader, TensorsDescribedWronglyAreDamage) {
  const auto v2 = [](const std::string& arguments) { return kV2 + "(" + arguments + "tR."; };
  EXPECT_THAT(error(v2("")), HasSubstr("described by 0 values"));
  EXPECT_THAT(error(v2("NNNNNN")), HasSubstr("wrong kinds"));
  EXPECT_THAT(error(v2(kStorage + "K\x00N)\x89N"s)), HasSubstr("size is no tuple"));
  EXPECT_THAT(error(v2(kStorage + "K\x00)N\x85\x89N"s)), HasSubstr("stride holds no integer"));
  EXPECT_THAT(error(v2(kStorage + "K\x00))\x89N}"s + text("x") + "\x88s")),
              HasSubstr("metadata has an unknown entry"));
  const std::string minus_one = "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") +
                                text("cpu") + "J\xff\xff\xff\xfftQ.";
  EXPECT_THAT(error(minus_one), HasSubstr("a storage of -1 elements"));
  const std::string huge = "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") +
                           text("cpu") + "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ftQ.";
  EXPECT_THAT(error(huge), HasSubstr("elements"));
}

TEST(PickleReader, BitsThatADTypeCannotHaveAreDamage) {
  const auto with_bits = [](const std::string& type, const std::string& grad,
                            const std::string& bits) {
    const std::string storage = "(" + text("storage") + "ctorch\n" + type + "Storage\n" +
                                text("0") + text("cpu") + "K\x02tQ";
    return kV2 + "(" + storage + "K\x00))"s + grad + kHooks + bits + "tR";
  };
  const std::string conj = "}" + text("conj") + "\x88s";
  const std::string neg = "}" + text("neg") + "\x88s";
  for (const char* const type : {"Long", "Byte", "Bool"}) {
    EXPECT_THAT(error(with_bits(type, "\x88", "") + "."),
                AllOf(HasSubstr("damaged"), HasSubstr("and requires a gradient")))
        << type;
    EXPECT_THAT(error("ctorch._utils\n_rebuild_parameter\n" + with_bits(type, "\x89", "") + "\x88" +
                      kHooks + "\x87R."),
                HasSubstr("and requires a gradient"))
        << type;
  }
  for (const char* const type : {"Half", "BFloat16", "Float", "Double", "ComplexFloat"}) {
    EXPECT_THAT(error(with_bits(type, "\x88", neg) + "."), HasSubstr("none: ")) << type;
  }
  EXPECT_THAT(error(with_bits("Bool", "\x89", neg) + "."), HasSubstr("it is bool and negated"));
  EXPECT_THAT(error(with_bits("Long", "\x89", neg) + "."), HasSubstr("none: "));
  EXPECT_THAT(error(with_bits("Float", "\x89", conj) + "."),
              HasSubstr("it is float32 and conjugated"));
}

TEST(PickleReader, AnotherProtocolIsUnsupportedByName) {
  EXPECT_THAT(error("\x80\x04N."), HasSubstr("unsupported_value: read /file.pt"));
  EXPECT_THAT(error("\x80\x04N."), HasSubstr("protocol 4 is newer than 2"));
  // As pickle.dumps writes {"a": True} and [1.5, 2]: no opcode says which protocol it is.
  for (const std::string& old : {"(dp0\nVa\np1\nI01\ns."s, "(lp0\nF1.5\naI2\na."s,
                                 "}q\x00X\x01\x00\x00\x00\x61q\x01I01\ns."s}) {
    EXPECT_THAT(error(old), AllOf(HasSubstr("unsupported_value"), HasSubstr("protocol 0 or 1"),
                                  HasSubstr("save it again")));
  }
  EXPECT_THAT(error("\x80\x02I01\n."), HasSubstr("unknown opcode 0x49"))
      << "it says that it is new";
}

TEST(PickleReader, ContainersThatContainThemselvesAreDamage) {
  EXPECT_THAT(error("]q\x00h\x00\x61."s), HasSubstr("key [0]: a container contains itself"));
  EXPECT_THAT(error("}q\x00"s + text("a") + "](h\x00\x65s."s),
              HasSubstr("key a[0]: a container contains itself"));
  EXPECT_THAT(error("]q\x00h\x00\x85\x61."s), HasSubstr("contains itself")) << "through a tuple";
}

TEST(PickleReader, DepthIsBounded) {
  EXPECT_EQ(error(repeated("]", kMaxDepth) + repeated("\x61", kMaxDepth - 1) + ".").substr(0, 4),
            "none");
  EXPECT_THAT(error(repeated("]", kMaxDepth + 1) + repeated("\x61", kMaxDepth) + "."),
              HasSubstr("nested deeper than 512"));
  EXPECT_THAT(error(repeated("(", 1000000) + repeated("t", 1000000) + "."),
              HasSubstr("nested deeper than 512"));
  // 300 levels, then the same 300 levels again below 300 others.
  const std::string deep = repeated("]", 300) + repeated("\x61", 299) + "q\x00"s;
  EXPECT_THAT(error("(" + deep + repeated("]", 300) + "h\x00\x61"s + repeated("\x61", 299) + "t."),
              HasSubstr("nested deeper than 512"));
}

TEST(PickleReader, SharingCannotMakeAWalkExplode) {
  // Each level refers to the one below twice: 2^40 leaves.
  std::string bomb = ")q\x00"s;
  for (int level = 1; level <= 40; ++level) {
    bomb += "h"s + static_cast<char>(level - 1) + "h" + static_cast<char>(level - 1) + "\x86q" +
            static_cast<char>(level);
  }
  EXPECT_THAT(error("(" + bomb + "t."), HasSubstr("tree of more values than are allowed"));
}

TEST(PickleReader, LargeStringsThatAreReferredToAgainAndAgainCountAsMany) {
  const std::string large = text(std::string(1 << 20, 'x'));
  EXPECT_THAT(error("(" + large + "q\x00"s + repeated("h\x00"s, 400000) + "t."),
              HasSubstr("tree of more values than are allowed"));
}

TEST(PickleReader, CopiesOfLargeDictsAreBounded) {
  std::string pickle = "(ccollections\nOrderedDict\nq\x00]q\x01("s;
  for (int i = 0; i < 3000; ++i) pickle += "K\x01K\x02\x86";
  pickle += "e";
  for (int i = 0; i < 3000; ++i) pickle += "h\x00h\x01\x85R"s;
  EXPECT_THAT(error(pickle + "t."), HasSubstr("copied again and again"));
}

TEST(PickleReader, AStorageWithoutARecordNamesTheKey) {
  const std::string pickle = "}" + text("model") + "}" + text("w") + "](" + kTensor + "\x65ss.";
  const auto what = [&](const FindRecord& find) -> std::string {
    try {
      (void)read_pickle(bytes_of(pickle), "/file.pt", find);
    } catch (const Error& thrown) {
      return thrown.what();
    }
    return "none";
  };
  EXPECT_EQ(what([](std::string_view) { return std::nullopt; }),
            "read /file.pt: record data.pkl, key model.w[0]: record data/0 is missing");
  EXPECT_EQ(what([](std::string_view) {
              return StoredRecord{5, 52};
            }),
            "read /file.pt: record data.pkl, key model.w[0]: record data/0 has 52 bytes, its "
            "storage 48");
  const Document found =
      read_pickle(bytes_of(pickle), "/file.pt", [](std::string_view key) -> StoredRecord {
        EXPECT_EQ(key, "0");
        return {5, 51};
      });
  const auto model = std::get<Dict>(std::get<Dict>(found.root().data).find("model")->data);
  const auto tensor = std::get<Tensor>(std::get<List>(model.find("w")->data)[0].data);
  EXPECT_EQ(tensor.record(), 5U);
  EXPECT_EQ(tensor.storage_bytes(), 51U);
}

TEST(PickleReader, APickleThatIsCutOffAnywhereIsDamage) {
  const std::string whole = "\x80\x02}(" + text("a") + kTensor + text("b") + "](K\x01Neu.";
  ASSERT_EQ(error(whole).substr(0, 4), "none");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THAT(error(whole.substr(0, length)), HasSubstr("damaged")) << length;
  }
}

TEST(PickleReader, AnyChangedByteIsReadOrRefused) {
  const std::string whole = "\x80\x02}(" + text("a") + kTensor + text("b") + "](K\x01Neu.";
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = whole;
      changed[at] = static_cast<char>(value);
      EXPECT_THAT(error(changed), MatchesRegex("(none|damaged|unsupported_value): (.|\n)*"));
    }
  }
}

}  // namespace
}  // namespace ckptring::plan
