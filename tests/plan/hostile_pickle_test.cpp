// Pickles made to do harm: nothing of them is executed, and none takes more memory than a bounded
// multiple of its size. pickle_reader_test.cpp has what is refused for what reason.
#include "plan/pickle_opcodes.h"
#include "plan/pickle_reader.h"
#include "plan/show.h"
#include "support/allocation_meter.h"
#include "support/colliding_ints.h"
#include "support/fault_row.h"
#include "support/joined.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace ckptring::plan {
namespace {

using test::joined;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace std::string_literals;  // NUL bytes in pickles

constexpr std::size_t kMiB = std::size_t{1} << 20;
/// Times the size of a pickle that reading it may take.
constexpr std::size_t kMostMemory = 32;

/// What reading it gives, or the error; memory is measured.
std::string outcome(const std::string& pickle) {
  std::string out;
  std::size_t peak = 0;
  {
    const test::AllocationMeter meter;
    std::optional<Document> document;
    try {
      const auto bytes = std::as_bytes(std::span(pickle));
      document = read_pickle({bytes.begin(), bytes.end()}, "/file.pt");
      peak = meter.peak();
    } catch (const Error& error) {
      out = std::string(to_string(error.code())) + ": " + error.what();
      peak = meter.peak();
    }
    if (document) out = "none: " + show(*document);
  }
  EXPECT_LE(peak, 64 * 1024 + kMostMemory * pickle.size());
  EXPECT_THAT(out, AnyOf(StartsWith("none: "), StartsWith("damaged: read /file.pt: "),
                         StartsWith("unsupported_value: read /file.pt: ")));
  return out;
}

std::string text(std::string_view characters) {
  std::string out = "X";
  for (int i = 0; i < 4; ++i) out += static_cast<char>(characters.size() >> (8 * i));
  return out.append(characters);
}

std::string number(std::uint64_t value, int width) {
  std::string out;
  for (int i = 0; i < width; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

std::string repeated(const std::string& part, std::size_t times) {
  std::string out;
  out.reserve(part.size() * times);
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}

void report(const std::string& row, std::uint64_t cases) {
  test::FaultRow{"damaged: " + row, cases, 0, test::broken_expectations()}.report();
}

TEST(HostilePickle, NothingIsExecuted) {
  const std::vector<std::string> functions = {"os\nsystem",
                                              "posix\nsystem",
                                              "nt\nsystem",
                                              "subprocess\nPopen",
                                              "builtins\neval",
                                              "__builtin__\neval",
                                              "builtins\nexec",
                                              "__builtin__\nexecfile",
                                              "builtins\ngetattr",
                                              "builtins\n__import__",
                                              "runpy\n_run_code",
                                              "torch\nload",
                                              "torch.hub\nload",
                                              "torch.serialization\nload",
                                              "pickle\nloads",
                                              "torch.jit\nload",
                                              "ctypes\nCDLL",
                                              "torch._utils\n_rebuild_tensor_v2.__globals__",
                                              "collections\nOrderedDict.__init__"};
  std::uint64_t cases = 0;
  for (const std::string& function : functions) {
    std::string name = function;
    name.replace(name.find('\n'), 1, ".");
    const std::string global = "c" + function + "\n";
    const std::string argument = text("touch /tmp/executed");
    // Called by REDUCE, made by NEWOBJ, given state by BUILD, named alone.
    EXPECT_EQ(outcome(global + argument + "\x85R."), "none: <an object made by " + name + ">");
    EXPECT_EQ(outcome(global + argument + "\x85\x81."), "none: <an object of class " + name + ">");
    EXPECT_EQ(outcome(joined({global, ")R}", text("__setstate__"), global, "sb."})),
              "none: <an object made by " + name + ">");
    EXPECT_EQ(outcome(global + "."), "none: <the Python object " + name + ">");
    // As what rebuilds a tensor, as its type, its storage or its dtype.
    EXPECT_EQ(outcome(joined({"ctorch._tensor\n_rebuild_from_type_v2\n(", global,
                              "ctorch\nTensor\n", argument, "\x85}tR."})),
              "none: <a tensor made by " + name + ">");
    EXPECT_EQ(outcome(joined({"(", text("storage"), global, text("0"), text("cpu"), "K\x01tQ."})),
              "none: <a storage of type " + name + ">");
    cases += 6;
  }
  report("names outside of the allow-list", cases);
}

TEST(HostilePickle, EveryOpcodeIsKnownOrNamed) {
  // Alone, and with as many values and a mark before it as it may want.
  std::uint64_t cases = 0;
  for (int opcode = 0; opcode < 256; ++opcode) {
    for (const std::string& before : {""s, "NNNN"s, "(NN"s, "]q\x00"s, "})("s, "cos\nsystem\n)"s}) {
      for (const std::string& after :
           {""s, "."s, "\x00."s, "\xff\xff\xff\xff\xff\xff\xff\xff."s, "os\nsystem\n)R."s}) {
        (void)outcome(joined({before, std::string(1, static_cast<char>(opcode)), after}));
        ++cases;
      }
    }
  }
  // Those that Python would find classes or run code by.
  for (const char opcode :
       {'i', 'o', '\x82', '\x83', '\x84', 'P',    'I',    'S',    'V',    'F',
        'L', 'd', 'l',    'p',    'g',    '\x8c', '\x93', '\x92', '\x94', '\x95'}) {
    EXPECT_THAT(outcome("\x80\x02("s + opcode + "os\nsystem\n)R."), HasSubstr("unknown opcode"))
        << opcode;
    ++cases;
  }
  report("opcodes", cases);
}

TEST(HostilePickle, LengthsThatCannotBeTakeNoMemory) {
  std::uint64_t cases = 0;
  for (const std::uint64_t length :
       {std::uint64_t{1}, std::uint64_t{100}, std::uint64_t{0x7fffffff}, std::uint64_t{0x80000000},
        std::uint64_t{0xfffffffe}, std::uint64_t{0xffffffff}}) {
    for (const char opcode : {'X', 'T', '\x8b'}) {
      EXPECT_THAT(outcome(opcode + number(length, 4)), StartsWith("damaged"));
      EXPECT_THAT(outcome("("s + opcode + number(length, 4) + "."), StartsWith("damaged"));
      cases += 2;
    }
    if (length == 1) continue;              // a number that a memo may have
    for (const char opcode : {'r', 'j'}) {  // LONG_BINPUT, LONG_BINGET
      EXPECT_THAT(outcome("N"s + opcode + number(length, 4) + "."), StartsWith("damaged"));
      ++cases;
    }
  }
  for (const char opcode : {'U', '\x8a'}) {
    EXPECT_THAT(outcome(opcode + "\xff."s), StartsWith("damaged"));
    ++cases;
  }
  EXPECT_THAT(outcome("c" + std::string(100000, 'x')), HasSubstr("a name has no end"));
  report("lengths", cases + 1);
}

TEST(HostilePickle, ShapesThatCannotBeTakeNoMemory) {
  const std::string hooks = "ccollections\nOrderedDict\n)R";
  std::uint64_t cases = 0;
  for (const std::uint64_t bits : {~std::uint64_t{0}, std::uint64_t{1} << 63,
                                   (std::uint64_t{1} << 63) - 1, std::uint64_t{1} << 62}) {
    const std::string huge = "\x8a\x08" + number(bits, 8);
    const auto storage = [&](const std::string& count) {
      return joined(
          {"(", text("storage"), "ctorch\nDoubleStorage\n", text("0"), text("cpu"), count, "tQ"});
    };
    const auto tensor = [&](const std::string& count, const std::string& offset,
                            const std::string& size, const std::string& stride) {
      return joined({"ctorch._utils\n_rebuild_tensor_v2\n(", storage(count), offset, "(", size,
                     "t(", stride, "t\x89", hooks, "tR."});
    };
    // Which of them are too much for a file is tensor_problem's to say; here they must not hurt.
    (void)outcome(tensor(huge, "K\x01", "K\x01", "K\x01"));
    (void)outcome(tensor("K\x01", huge, "K\x01", "K\x01"));
    (void)outcome(tensor("K\x01", "K\x01", joined({huge, huge, huge}), "K\x01K\x01K\x01"));
    (void)outcome(tensor("K\x01", "K\x01", "K\x01", huge));
    cases += 4;
  }
  report("shapes", cases);
}

TEST(HostilePickle, DeepAndSharedContainersAreBounded) {
  constexpr std::size_t kMany = 1000000;
  std::vector<std::string> bombs = {
      repeated("(", kMany),
      repeated("]", kMany) + repeated("a", kMany - 1) + ".",
      repeated("}", kMany) + ".",
      repeated("(", kMany) + repeated("t", kMany) + ".",
      ")" + repeated("\x85", kMany) + ".",
      "N" + repeated("2\x86", kMany) + ".",
      "]q\x00"s + repeated("h\x00"s, kMany) + repeated("a", kMany) + ".",
      "N" + repeated("2", kMany) + repeated("0", kMany) + ".",
      "cos\nsystem\n" + repeated(")R", kMany) + ".",
  };
  // Each level twice the one below: of tuples, lists, dicts and strings.
  for (const std::string& pair : {"\x86"s,
                                  "]q\xff"
                                  "0h\xff"
                                  "0\x86"s}) {
    std::string bomb = "Nq\x00"s;
    for (int level = 0; level < 60; ++level) {
      bomb += "h"s + static_cast<char>(level) + "h" + static_cast<char>(level) + pair + "q" +
              static_cast<char>(level + 1);
      bomb += "0";
    }
    bombs.push_back("N0" + bomb + "h\x3c.");
  }
  const std::string large = text(std::string(kMiB, 'x')) + "q\x00"s;
  bombs.push_back("(" + large + repeated("h\x00"s, 5000) + "t.");
  bombs.push_back("}(" + large + "N" + repeated("h\x00N"s, 5000) + "u.");
  bombs.push_back("(" + repeated("Nq\x00"s, 100000) + "t.");
  for (std::size_t memo = 1; memo < 65536; memo *= 4) {
    bombs.push_back(repeated("N", memo) + "r" + number(memo - 1, 4) + ".");
  }
  for (const std::string& bomb : bombs) {
    (void)outcome(bomb);  // bounded, by what it measures
  }
  report("deep, shared and repeated values", bombs.size());
}

TEST(HostilePickle, WhateverIsRepeatedTakesItsShareOfMemory) {
  const std::string tensor =
      "ctorch._utils\n_rebuild_tensor_v2\n(" +
      ("(" + text("storage") + "ctorch\nByteStorage\n" + text("0") + text("cpu") + "K\x01tQ") +
      "K\x00))\x89NtRq\x00"s + "0";
  const std::vector<std::string> parts = {
      "N",
      "K\x01",
      "J\1\2\3\4",
      "\x8a\0"s,
      "G\0\0\0\0\0\0\0\0"s,
      "U\0"s,
      "X\0\0\0\0"s,
      "U\1\xff",
      "]",
      "}",
      ")",
      "N\x85",
      "NN\x86",
      "NNN\x87",
      "(t",
      "(NNNNNt",
      "]Na",
      "](NNe",
      "]NaNa",
      "}K\1Ns",
      "}(K\1NU\1aNu",
      "c\n\n",
      "cos\nsystem\n)R",
      "h\0"s,
      "Nq\1",
      "Nq\1h\1",
      "(",
      "2",
      "h\0N\x86"s,
      "ctorch\nSize\n)\x85R",
      "ccollections\nOrderedDict\n)R",
      "ccopy_reg\n_reconstructor\n(c\n\nNNtR",
      "ctorch._utils\n_rebuild_parameter\nh\0\x88N\x87R"s,
  };
  std::uint64_t cases = 0;
  for (const std::string& part : parts) {
    const std::string many = repeated(part, (512 << 10) / part.size());
    for (const std::string& pickle :
         {test::joined({tensor, "(", many, "t."}), test::joined({tensor, "](", many, "e."}),
          test::joined({tensor, many, "."})}) {
      (void)outcome(pickle);  // bounded, by what it measures
      ++cases;
    }
  }
  report("repeated values of all kinds", cases);
}

TEST(HostilePickle, KeysThatCollideInLibtorchsDictAreRefused) {
  for (const std::uint64_t count : {8U, 12U, 13U, 200U}) {
    std::string pickle = "](}(";
    for (std::uint64_t i = 0; i < count; ++i)
      pickle += "\x8a\x08" + number(test::colliding_int(i), 8) + "N";
    const std::string found = outcome(pickle + "ue.");
    if (count < 13) {
      EXPECT_THAT(found, StartsWith("none: [{"));
    } else {
      EXPECT_THAT(found,
                  HasSubstr("key [0]: its " + std::to_string(count) + " keys are such that"));
    }
  }
}

TEST(HostilePickle, RandomProgramsAreReadOrRefused) {
  // Opcodes as they may follow each other, which noise would seldom be.
  const std::vector<std::string> parts = {
      "N",
      "\x88",
      "K\x07",
      "M\x01\x02",
      "J\xff\xff\xff\xff",
      "\x8a\x01\x05",
      "G\x3f\xf0\0\0\0\0\0\0"s,
      text("a"),
      text("storage"),
      text("cpu"),
      text("0"),
      "U\x01z",
      ")",
      "]",
      "}",
      "(",
      "t",
      "\x85",
      "\x86",
      "\x87",
      "a",
      "e",
      "s",
      "u",
      "0",
      "1",
      "2",
      "q\x00"s,
      "q\x01",
      "q\x02",
      "h\x00"s,
      "h\x01",
      "h\x02",
      "R",
      "\x81",
      "b",
      "Q",
      "ctorch\nFloatStorage\n",
      "ctorch._utils\n_rebuild_tensor_v2\n",
      "ctorch._utils\n_rebuild_tensor_v3\n",
      "ctorch._utils\n_rebuild_parameter\n",
      "ctorch._utils\n_rebuild_parameter_with_state\n",
      "ctorch._tensor\n_rebuild_from_type_v2\n",
      "ctorch\nTensor\n",
      "ctorch\nSize\n",
      "ctorch\nfloat32\n",
      "ccopy_reg\n_reconstructor\n",
      "ccollections\nOrderedDict\n",
      "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "K\x0ctQ"};
  std::mt19937_64 random(3);
  constexpr int kCases = 100000;
  int whole = 0;
  for (int i = 0; i < kCases; ++i) {
    std::string pickle;
    for (std::uint64_t length = 1 + random() % 24; length > 0; --length) {
      pickle += parts[random() % parts.size()];
    }
    // Whatever is left becomes one value.
    whole += outcome(joined({"(", pickle, "t."})).rfind("none", 0) == 0 ? 1 : 0;
  }
  EXPECT_GT(whole, kCases / 200) << "hardly any was a pickle";
  report("random programs", kCases);
}

}  // namespace
}  // namespace ckptring::plan
