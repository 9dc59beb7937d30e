// What the recorder lays out and the archive reads back; and what the archive refuses.
#include "plan/pt_archive.h"

#include "plan/checkpoint_json.h"
#include "plan/pt_layout.h"
#include "plan/show.h"
#include "plan/zip_format.h"
#include "plan/zip_layout.h"
#include "support/materialize.h"
#include "support/memory_source.h"
#include "support/new_storage.h"
#include "support/plan_source.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <span>
#include <string>

namespace ckptring::plan {
namespace {

using test::Bytes;
using test::materialize;
using test::MemorySource;
using test::pattern;
using test::PlanSource;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Sizes = std::vector<std::int64_t>;

/// Valid as long as `sizes` and `strides`: at least to the end of the statement.
TensorView view(std::uint32_t storage, DType dtype, const Sizes& sizes, const Sizes& strides,
                std::int64_t offset = 0) {
  return {.dtype = dtype,
          .storage = storage,
          .offset = offset,
          .sizes = sizes,
          .strides = strides,
          .requires_grad = false,
          .conj = false,
          .neg = false};
}

/// One value, written by `write` into a file without storages, read back.
std::string round_trip(const std::function<void(StateRecorder&)>& write) {
  StateRecorder recorder;
  write(recorder);
  const MemorySource source(materialize(lay_out_pt(recorder.recording(), {}), {}));
  return show(PtArchive::open(source).read_value(source));
}

/// A file with four storages: small, large (page-aligned), empty, and one of two dtypes.
struct Example {
  std::vector<Bytes> storages{pattern(48, 1), pattern(100000, 2), {}, pattern(64, 3)};
  FilePlan plan = make_plan();
  Bytes file = materialize(plan, storages);

  FilePlan make_plan() const {
    StateRecorder b;
    for (const Bytes& storage : storages) test::new_storage(b, storage.size());
    b.begin_dict();
    b.key("w");
    const Sizes sizes{3, 4};
    const Sizes strides{4, 1};
    TensorView w = view(0, DType::float32, sizes, strides);
    w.requires_grad = true;
    b.tensor(w);
    b.key("tied");
    b.tensor(view(0, DType::float32, {2}, {4}, 1));
    b.key("large");
    b.tensor(view(1, DType::float16, {50000}, {1}));
    b.key("empty");
    b.tensor(view(2, DType::int64, {0, 2}, {2, 1}));
    b.key("bytes");
    b.tensor(view(3, DType::uint8, {64}, {1}));
    b.key("floats");
    b.tensor(view(3, DType::float32, {16}, {1}));
    b.key(5);
    b.begin_list();
    b.none();
    b.begin_tuple();
    b.boolean(true);
    b.real(2.5);
    b.end_tuple();
    b.end_list();
    b.end_dict();
    return lay_out_pt(
        b.recording(),
        {{.global_rank = 2, .global_world_size = 4}, 7, {{"note", std::string("hi")}}});
  }
};

TEST(PtArchive, GivesBackTheWholeState) {
  const Example example;
  const MemorySource source(example.file);
  const PtArchive archive = PtArchive::open(source);
  EXPECT_EQ(show(archive.read_value(source)),
            "{'w': float32@0+0(3,4|4,1)g, 'tied': float32@0+1(2|4), 'large': "
            "float16@1+0(50000|1), 'empty': int64@2+0(0,2|2,1), 'bytes': uint8@3+0(64|1), "
            "'floats': float32@3+0(16|1), 5: [None, (True, 2.5)]}");
  EXPECT_EQ(archive.info().rank, 2);
  EXPECT_EQ(archive.info().world_size, 4);
  EXPECT_EQ(archive.info().step, 7);
  EXPECT_EQ(archive.info().path, source.path());
  EXPECT_EQ(std::get<std::string>(archive.info().metadata.at("note")), "hi");
}

TEST(PtArchive, EveryStorageIsARecordWithItsBytesAndChecksum) {
  const Example example;
  const PtArchive archive = PtArchive::open(MemorySource(example.file));
  std::vector<std::string> names;
  for (const Record& record : archive.records()) names.push_back(record.name);
  EXPECT_EQ(names, (std::vector<std::string>{"version", "byteorder", "ckptring.json", "data.pkl",
                                             "data/0", "data/1", "data/2", "data/3"}));
  for (std::size_t i = 0; i < example.storages.size(); ++i) {
    const Record* const record = archive.find("data/" + std::to_string(i));
    ASSERT_NE(record, nullptr);
    ASSERT_EQ(record->size, example.storages[i].size());
    EXPECT_TRUE(
        std::equal(example.storages[i].begin(), example.storages[i].end(),
                   example.file.begin() + static_cast<std::ptrdiff_t>(record->data_offset)));
    EXPECT_EQ(record->crc32, base::crc32(example.storages[i]));
  }
  EXPECT_EQ(archive.find("data/4"), nullptr);
}

TEST(PtArchive, PayloadsAreAligned) {
  for (const std::uint64_t size : {1U, 63U, 64U, 65535U, 65536U, 65537U, 1000000U}) {
    StateRecorder b;
    for (int i = 0; i < 5; ++i) test::new_storage(b, size);
    b.none();
    const FilePlan plan = lay_out_pt(b.recording(), {});
    ASSERT_EQ(plan.payloads().size(), 5U);
    for (const Payload& payload : plan.payloads()) {
      EXPECT_EQ(payload.file_offset % (size >= 65536 ? 4096 : 64), 0U) << size;
    }
  }
}

TEST(PtArchive, AnEmptyStorageIsARecordButNoPayload) {
  const Example example;
  ASSERT_EQ(example.plan.payloads().size(), 3U);
  EXPECT_EQ(example.plan.payloads()[2].source, 3U);
  EXPECT_EQ(example.plan.fixups().size(), 6U);
}

TEST(PtArchive, TheSameStateGivesTheSameBytes) {
  const Example first;
  const Example second;
  EXPECT_TRUE(first.file == second.file);
}

TEST(PtArchive, IntegersOfAllSizesComeBack) {
  for (const std::int64_t value :
       {std::int64_t{0}, std::int64_t{255}, std::int64_t{256}, std::int64_t{65535},
        std::int64_t{65536}, std::int64_t{2147483647}, std::int64_t{2147483648}, std::int64_t{-1},
        std::int64_t{-2147483648}, std::int64_t{-2147483649}, std::int64_t{1} << 39,
        (std::int64_t{1} << 39) - 1, -(std::int64_t{1} << 39), -(std::int64_t{1} << 39) - 1,
        std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
    EXPECT_EQ(round_trip([value](StateRecorder& b) { b.integer(value); }), std::to_string(value));
  }
}

TEST(PtArchive, EmptyAndNestedContainersComeBack) {
  EXPECT_EQ(round_trip([](StateRecorder& b) {
              b.begin_dict();
              b.end_dict();
            }),
            "{}");
  EXPECT_EQ(round_trip([](StateRecorder& b) {
              b.begin_list();
              b.begin_list();
              b.end_list();
              b.begin_tuple();
              b.end_tuple();
              b.begin_dict();
              b.key("");
              b.begin_tuple();
              b.string("");
              b.end_tuple();
              b.key(std::numeric_limits<std::int64_t>::min());
              b.string("same");
              b.key("same");
              b.string("same");
              b.end_dict();
              b.end_list();
            }),
            "[[], (), {'': (''), -9223372036854775808: 'same', 'same': 'same'}]");
}

TEST(PtArchive, ManyKeysAndLongStringsComeBack) {
  const std::string longest(1000, 'x');
  std::string expected;
  const std::string found = round_trip([&](StateRecorder& b) {
    b.begin_list();
    for (int i = 0; i < 1000; ++i) {
      for (const std::string& text : {std::to_string(i), longest, std::string("again")}) {
        b.string(text);
        expected += (expected.empty() ? "'" : ", '") + text + "'";
      }
    }
    b.end_list();
  });
  EXPECT_EQ(found, "[" + expected + "]");
}

TEST(PtArchive, TensorsOfAllDTypesAndRanksComeBack) {
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    StateRecorder b;
    test::new_storage(b, 240 * element_size(dtype), "cuda:0");
    b.begin_list();
    b.tensor(view(0, dtype, {}, {}, 239));
    b.tensor(view(0, dtype, {2}, {1}));
    b.tensor(view(0, dtype, {2, 3}, {3, 1}));
    b.tensor(view(0, dtype, {2, 3, 4}, {12, 4, 1}));
    b.tensor(view(0, dtype, {2, 3, 4, 5}, {60, 20, 5, 1}));
    b.tensor(view(0, dtype, {5, 4, 3, 2, 1}, {1, 5, 20, 60, 0}));
    b.end_list();
    const std::vector<Bytes> storages{pattern(240 * element_size(dtype), 1)};
    const MemorySource source(materialize(lay_out_pt(b.recording(), {}), storages));
    const Document value = PtArchive::open(source).read_value(source);
    const std::string n(name(dtype));
    EXPECT_EQ(show(value), fmt::format("[{0}@0+239(|), {0}@0+0(2|1), {0}@0+0(2,3|3,1), "
                                       "{0}@0+0(2,3,4|12,4,1), {0}@0+0(2,3,4,5|60,20,5,1), "
                                       "{0}@0+0(5,4,3,2,1|1,5,20,60,0)]",
                                       n));
    const auto first = std::get<Tensor>(std::get<List>(value.root().data)[0].data);
    EXPECT_EQ(first.location(), "cuda:0");
    EXPECT_EQ(first.storage_bytes(), 240U * element_size(dtype));
  }
}

TEST(PtArchive, AStorageOfAnUnevenSizeKeepsAllItsBytes) {
  StateRecorder b;
  test::new_storage(b, 10);
  const Sizes sizes{2};
  const Sizes strides{1};
  TensorView two = view(0, DType::float32, sizes, strides);
  two.requires_grad = true;
  b.tensor(two);
  const std::vector<Bytes> storages{pattern(10, 1)};
  const MemorySource source(materialize(lay_out_pt(b.recording(), {}), storages));
  const Document value = PtArchive::open(source).read_value(source);
  EXPECT_EQ(show(value), "float32@0+0(2|1)") << "as a v3 tensor, which cannot require a gradient";
  EXPECT_EQ(std::get<Tensor>(value.root().data).storage_bytes(), 10U);
}

TEST(PtArchive, ConjugateAndNegativeBitsComeBack) {
  StateRecorder b;
  test::new_storage(b, 16);
  test::new_storage(b, 16);
  b.begin_list();
  const Sizes sizes{2};
  const Sizes strides{1};
  TensorView v2 = view(0, DType::complex64, sizes, strides);
  v2.conj = true;
  b.tensor(v2);
  v2.neg = true;
  b.tensor(v2);
  TensorView v3 = view(1, DType::complex32, sizes, strides);
  v3.neg = true;
  b.tensor(v3);
  b.end_list();
  const std::vector<Bytes> storages{pattern(16, 1), pattern(16, 2)};
  const MemorySource source(materialize(lay_out_pt(b.recording(), {}), storages));
  EXPECT_EQ(show(PtArchive::open(source).read_value(source)),
            "[complex64@0+0(2|1)c, complex64@0+0(2|1)cn, complex32@1+0(2|1)n]");
}

TEST(StateRecorder, RefusesWhatTheReaderWouldRefuse) {
  StateRecorder b;
  for (int i = 0; i < 512; ++i) b.begin_list();
  try {
    b.begin_dict();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
    EXPECT_THAT(error.what(), HasSubstr("512 deep"));
  }
}

TEST(StateRecorder, RefusesAnOrderThatMakesNoState) {
  const auto refused = [](const std::function<void(StateRecorder&)>& calls) {
    StateRecorder b;
    try {
      calls(b);
      (void)lay_out_pt(b.recording(), {});
    } catch (const Error& error) {
      return error.code() == ErrorCode::invalid_argument;
    }
    return false;
  };
  EXPECT_TRUE(refused([](StateRecorder&) {}));
  EXPECT_TRUE(refused([](StateRecorder& b) { b.begin_list(); }));
  EXPECT_TRUE(refused([](StateRecorder& b) { b.end_list(); }));
  EXPECT_TRUE(refused([](StateRecorder& b) {
    b.none();
    b.none();
  }));
  EXPECT_TRUE(refused([](StateRecorder& b) { b.tensor(view(0, DType::int8, {}, {})); }));
  EXPECT_TRUE(refused([](StateRecorder& b) {
    b.begin_dict();
    b.none();
  })) << "a value without its key";
  EXPECT_TRUE(refused([](StateRecorder& b) {
    b.begin_dict();
    b.key("a");
    b.end_dict();
  })) << "a key without its value";
  EXPECT_TRUE(refused([](StateRecorder& b) {
    b.begin_list();
    b.key("a");
  })) << "a key outside of a dict";
  EXPECT_TRUE(refused([](StateRecorder& b) {
    b.begin_list();
    b.end_dict();
  })) << "the end of something else";
}

TEST(StateRecorder, NamesTheKeyOfWhatItRefuses) {
  const auto words_of = [](const std::function<void(StateRecorder&)>& calls,
                           std::string path = "run/it") {
    StateRecorder b("save", std::move(path));
    b.begin_dict();
    b.key("model");
    b.begin_list();
    b.none();
    b.begin_dict();
    b.key(7);
    try {
      calls(b);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_THAT(words_of([](StateRecorder& b) { b.refuse("why"); }),
              HasSubstr("save key model[1].7 to run/it: why"));
  EXPECT_THAT(words_of([](StateRecorder& b) { b.refuse("why"); }, ""),
              HasSubstr("save key model[1].7: why"));
  EXPECT_THAT(words_of([](StateRecorder& b) { b.refuse_open("why"); }),
              HasSubstr("save key model[1] to"));
  EXPECT_THAT(words_of([](StateRecorder& b) { b.string("\xff"); }),
              HasSubstr("key model[1].7 to run/it: the string is not valid UTF-8"));
  EXPECT_THAT(words_of([](StateRecorder& b) {
                b.boolean(true);
                b.key("\xff");
              }),
              HasSubstr("the key is not valid UTF-8"));
  EXPECT_THAT(words_of([](StateRecorder& b) {
                b.tensor(view(test::new_storage(b, 16), DType::float32, {5}, {1}));
              }),
              HasSubstr("key model[1].7 to run/it: the tensor could not be read again: its last "
                        "element is number 4"));
}

TEST(StateRecorder, KnowsAStorageByItsIdentity) {
  StateRecorder b;
  std::array<char, 3> memory{};
  b.begin_list();
  EXPECT_EQ(b.storage({.data = memory.data(), .bytes = 16}), 0u);
  b.tensor(view(0, DType::float32, {4}, {1}));
  EXPECT_EQ(b.storage({.data = memory.data() + 1, .bytes = 8, .device = 12}), 1u);
  b.tensor(view(1, DType::uint8, {8}, {1}));
  EXPECT_EQ(b.storage({.data = nullptr, .bytes = 99, .identity = memory.data()}), 0u)
      << "its size was told before";
  b.tensor(view(0, DType::float32, {2}, {1}));
  b.end_list();
  const Recording& recorded = b.recording();
  ASSERT_EQ(recorded.storages().size(), 2u);
  EXPECT_EQ(recorded.storages()[0].bytes, 16u);
  EXPECT_EQ(recorded.storages()[0].views, 2u);
  EXPECT_EQ(b.path_of_storage(0), "[0]");
  EXPECT_EQ(b.path_of_storage(1), "[1]");
  EXPECT_EQ(recorded.location(recorded.storages()[1]), "cuda:12");
}

TEST(StateRecorder, EmptyStoragesAreNotTheSameAndMemoryLiesSomewhere) {
  StateRecorder b;
  b.begin_list();
  EXPECT_EQ(b.storage({}), 0u);
  EXPECT_EQ(b.storage({}), 1u);
  EXPECT_THROW(b.storage({.data = nullptr, .bytes = 1}), Error);
  for (const int device : {-2, 1 << 15, 65535, 65536}) {
    EXPECT_THROW(b.storage({.data = &b, .bytes = 1, .device = device}), Error) << device;
  }
}

TEST(StateRecorder, AFileThatCannotBeAddressedIsRefused) {
  StateRecorder b;
  test::new_storage(b, std::uint64_t{1} << 62);
  test::new_storage(b, std::uint64_t{1} << 62);
  b.none();
  EXPECT_THROW((void)lay_out_pt(b.recording(), {}), Error);
}

// Large files, as plans: what must be in them is checked by reading their index.

TEST(PtArchive, RecordsAndFilesOfMoreThan4GiBAreFound) {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  for (const std::uint64_t first : {4 * kGiB - 2, 4 * kGiB - 1, 4 * kGiB, 5 * kGiB, 1000 * kGiB}) {
    StateRecorder b;
    test::new_storage(b, first);
    test::new_storage(b, 10);
    b.tensor(view(0, DType::uint8, {static_cast<std::int64_t>(first)}, {1}));
    const FilePlan plan = lay_out_pt(b.recording(), {});
    const PlanSource source(plan);
    const PtArchive archive = PtArchive::open(source);
    for (const Payload& payload : plan.payloads()) {
      const Record* const record = archive.find("data/" + std::to_string(payload.source));
      ASSERT_NE(record, nullptr);
      EXPECT_EQ(record->size, payload.size);
      EXPECT_EQ(record->data_offset, payload.file_offset);
    }
    EXPECT_EQ(std::get<Tensor>(archive.read_value(source).root().data).storage_bytes(), first);
  }
}

TEST(PtArchive, MoreThan65535RecordsAreFound) {
  for (const std::uint32_t count : {65530U, 65531U, 65532U, 70000U}) {
    StateRecorder b;
    for (std::uint32_t i = 0; i < count; ++i) test::new_storage(b, 1);
    b.none();
    const FilePlan plan = lay_out_pt(b.recording(), {});
    EXPECT_EQ(PtArchive::open(PlanSource(plan)).records().size(), count + 4);
  }
}

// Files that are wrong.

std::string error_of(const Bytes& file) {
  try {
    const MemorySource source(file);
    const PtArchive archive = PtArchive::open(source);
    return "none: " + show(archive.read_value(source));
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  }
}

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A file of the given records, all known beforehand.
Bytes archive_of(const std::vector<std::pair<std::string, std::string>>& records,
                 const std::string& folder = "archive") {
  ZipLayout layout(folder);
  for (const auto& [name, contents] : records) layout.add_literal(name, bytes_of(contents));
  return materialize(std::move(layout).finish(), {});
}

template <class T>
void put(Bytes& file, std::uint64_t at, T value) {
  std::memcpy(file.data() + at, &value, sizeof value);
}

std::uint64_t find_last(const Bytes& file, std::uint32_t signature) {
  for (std::uint64_t at = file.size() - 4;; --at) {
    if (std::memcmp(file.data() + at, &signature, 4) == 0) return at;
  }
}

class WrongZip : public ::testing::Test {
 protected:
  const Bytes good_ = archive_of({{"data.pkl", "N."}, {"data/0", "0123"}});
  /// Headers of data/0, the last record.
  const std::uint64_t local_ = find_last(good_, zip::kLocalSignature);
  const std::uint64_t central_ = find_last(good_, zip::kCentralSignature);
  const std::uint64_t end_ = find_last(good_, zip::kEndSignature);

  template <class T>
  std::string with(std::uint64_t at, T value) const {
    Bytes file = good_;
    put(file, at, value);
    return error_of(file);
  }
};

TEST_F(WrongZip, TheExampleItselfIsRight) { EXPECT_EQ(error_of(good_), "none: None"); }

TEST_F(WrongZip, ThatIsNoZipIsNamed) {
  EXPECT_THAT(error_of({}), HasSubstr("the file is empty"));
  EXPECT_THAT(error_of(bytes_of("hello")), HasSubstr("not a zip archive"));
  EXPECT_THAT(error_of(Bytes(100000)), HasSubstr("not a zip archive"));
  EXPECT_THAT(error_of(bytes_of(std::string("\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.") +
                                std::string(100, 'x'))),
              AllOf(HasSubstr("unsupported_value: read /memory/file.pt"),
                    HasSubstr("torch file of the old format")));
}

TEST_F(WrongZip, BytesBehindTheEndAreNamed) {
  for (const std::size_t more : {1U, 22U, 70000U, 5000000U}) {
    Bytes appended = good_;
    appended.resize(good_.size() + more, std::byte{'P'});
    EXPECT_THAT(
        error_of(appended),
        AllOf(HasSubstr("damaged: "), HasSubstr(std::to_string(more) + " bytes follow the end")));
  }
}

TEST(WrongArchive, ATorchScriptArchiveIsNamedWhateverElseIsWrong) {
  for (const char* name : {"constants.pkl", "code/__torch__.py"}) {
    EXPECT_THAT(error_of(archive_of({{"data.pkl", "N."}, {name, "x"}})),
                AllOf(HasSubstr("unsupported_value: read /memory/file.pt: it is a TorchScript"),
                      HasSubstr("torch::load")));
  }
  EXPECT_EQ(error_of(archive_of({{"data.pkl", "N."}, {"encode/x", "x"}})), "none: None");
}

TEST_F(WrongZip, ThatIsCutOffAnywhereIsDamaged) {
  for (std::size_t length = 0; length < good_.size(); ++length) {
    const std::string error =
        error_of(Bytes(good_.begin(), good_.begin() + static_cast<std::ptrdiff_t>(length)));
    EXPECT_THAT(error, HasSubstr("damaged: ")) << length;
  }
  EXPECT_THAT(error_of(Bytes(good_.begin(), good_.end() - 1)), HasSubstr("cut off"));
}

TEST_F(WrongZip, EndRecordsThatLieAreDamaged) {
  EXPECT_THAT(with<std::uint32_t>(end_ + zip::kEndCentralOffsetAt, 5), HasSubstr("end record"));
  EXPECT_THAT(with<std::uint32_t>(end_ + zip::kEndCentralSizeAt, 5), HasSubstr("end record"));
  EXPECT_THAT(with<std::uint32_t>(end_ + zip::kEndCentralSizeAt, 0xFFFFFFFE),
              HasSubstr("end record"));
  EXPECT_THAT(with<std::uint32_t>(end_ + zip::kEndCentralOffsetAt, 0xFFFFFFFF),
              HasSubstr("zip64 end record is missing"));
  Bytes counts = good_;
  put<std::uint16_t>(counts, end_ + zip::kEndRecordsAt, 1000);
  put<std::uint16_t>(counts, end_ + zip::kEndDiskRecordsAt, 1000);
  EXPECT_THAT(error_of(counts), HasSubstr("1000 records do not fit"));
  put<std::uint16_t>(counts, end_ + zip::kEndRecordsAt, 1);
  put<std::uint16_t>(counts, end_ + zip::kEndDiskRecordsAt, 1);
  EXPECT_THAT(error_of(counts), HasSubstr("bytes follow the last record"));
  put<std::uint16_t>(counts, end_ + zip::kEndRecordsAt, 0);
  put<std::uint16_t>(counts, end_ + zip::kEndDiskRecordsAt, 0);
  EXPECT_THAT(error_of(counts), HasSubstr("no records"));
  EXPECT_THAT(with<std::uint16_t>(end_ + zip::kEndDiskAt, 1), HasSubstr("several disks"));
  EXPECT_THAT(with<std::uint16_t>(end_ + zip::kEndDiskRecordsAt, 1), HasSubstr("several disks"));
}

TEST_F(WrongZip, CentralEntriesThatLieAreDamaged) {
  EXPECT_THAT(with<std::uint32_t>(central_, 1), HasSubstr("record 2 of 2: wrong signature"));
  EXPECT_THAT(with<std::uint16_t>(central_ + zip::kCentralNameLengthAt, 60000),
              HasSubstr("cut off"));
  EXPECT_THAT(with<std::uint32_t>(central_ + zip::kCentralStoredSizeAt, 5),
              HasSubstr("record archive/data/0: it is stored, but its two sizes differ"));
  EXPECT_THAT(with<std::uint32_t>(central_ + zip::kCentralLocalOffsetAt, 0x7FFFFFFF),
              HasSubstr("leave the file"));
  EXPECT_THAT(with<std::uint32_t>(central_ + zip::kCentralLocalOffsetAt, 0),
              HasSubstr("overlaps the next record"));
  EXPECT_THAT(with<std::uint32_t>(central_ + zip::kCentralLocalOffsetAt,
                                  static_cast<std::uint32_t>(local_ + 1)),
              HasSubstr("bytes that belong to no record follow it"));
  EXPECT_THAT(with<std::uint32_t>(central_ + zip::kCentralLocalOffsetAt, 0xFFFFFFFF),
              HasSubstr("zip64 field is missing"));
  EXPECT_THAT(with<std::byte>(central_ + zip::kCentralSize, std::byte{0xFF}),
              HasSubstr("not text"));
  EXPECT_THAT(with<std::byte>(central_ + zip::kCentralSize, std::byte{'b'}),
              HasSubstr("outside of the archive's top folder archive/"));
  EXPECT_THAT(with<std::byte>(central_ + zip::kCentralSize + 13, std::byte{'X'}),
              HasSubstr("its local header has another name"));
}

TEST_F(WrongZip, LocalHeadersThatLieAreDamaged) {
  EXPECT_THAT(with<std::uint32_t>(local_, 1), HasSubstr("wrong signature"));
  EXPECT_THAT(with<std::byte>(local_ + zip::kLocalSize, std::byte{'b'}), HasSubstr("another name"));
  EXPECT_THAT(with<std::uint16_t>(local_ + zip::kLocalNameLengthAt, 1), HasSubstr("another name"));
  EXPECT_THAT(with<std::uint16_t>(local_ + zip::kLocalFlagsAt, 8), HasSubstr("other flags"));
  EXPECT_THAT(with<std::uint16_t>(local_ + zip::kLocalMethodAt, 8), HasSubstr("another method"));
  EXPECT_THAT(with<std::uint32_t>(local_ + zip::kLocalCrcAt, 8), HasSubstr("another checksum"));
  EXPECT_THAT(with<std::uint32_t>(local_ + zip::kLocalStoredSizeAt, 5), HasSubstr("another size"));
  EXPECT_THAT(with<std::uint32_t>(local_ + zip::kLocalFullSizeAt, 5), HasSubstr("another size"));
  EXPECT_THAT(with<std::uint16_t>(local_ + zip::kLocalExtraLengthAt, 60000), HasSubstr("overlaps"));
}

TEST_F(WrongZip, WhatIsNotReadIsUnsupportedByName) {
  const auto flags = central_ + zip::kCentralFlagsAt;
  EXPECT_THAT(with<std::uint16_t>(flags, 0x0801),
              AllOf(HasSubstr("unsupported_value"), HasSubstr("data/0: it is encrypted")));
  EXPECT_THAT(with<std::uint16_t>(flags, 0x0840), HasSubstr("encrypted"));
  EXPECT_THAT(with<std::uint16_t>(flags, 0x2800), HasSubstr("encrypted"));
  EXPECT_THAT(with<std::uint16_t>(flags, 0x0820), HasSubstr("patch"));
  EXPECT_THAT(
      with<std::uint16_t>(central_ + zip::kCentralMethodAt, 8),
      AllOf(HasSubstr("unsupported_value"), HasSubstr("data/0: it is compressed (method 8)")));
  EXPECT_THAT(with<std::uint16_t>(central_ + zip::kCentralDiskAt, 3), HasSubstr("another disk"));
}

TEST(WrongArchive, RecordsOfTheSameNameAreDamaged) {
  EXPECT_THAT(error_of(archive_of({{"data.pkl", "N."}, {"data.pkl", "N."}})),
              HasSubstr("record archive/data.pkl: the name comes twice"));
}

TEST(WrongArchive, WithoutAPickleIsNoTorchFile) {
  EXPECT_THAT(error_of(archive_of({{"readme", "hello"}})),
              HasSubstr("record data.pkl is missing: it is not a torch file"));
}

TEST(WrongArchive, AnyTopFolderIsRead) {
  EXPECT_EQ(error_of(archive_of({{"data.pkl", "N."}}, "my model")), "none: None");
}

TEST(WrongArchive, BigEndianDataAreUnsupported) {
  EXPECT_THAT(error_of(archive_of({{"data.pkl", "N."}, {"byteorder", "big"}})),
              HasSubstr("unsupported_value: read /memory/file.pt: it was written on a big-endian"));
  EXPECT_THAT(error_of(archive_of({{"data.pkl", "N."}, {"byteorder", "odd"}})),
              HasSubstr("damaged"));
  EXPECT_EQ(error_of(archive_of({{"data.pkl", "N."}, {"byteorder", "little"}})), "none: None");
}

TEST(WrongArchive, ANewerFormatIsNamedBeforeAnythingElse) {
  EXPECT_THAT(error_of(archive_of({{"ckptring.json", R"({"format_version":9})"}})),
              HasSubstr("newer_format: read /memory/file.pt: it is written in format version 9; "
                        "this build reads up to version 1"));
}

TEST(WrongArchive, SmallRecordsAreCheckedAgainstTheirChecksum) {
  Bytes file = archive_of({{"data.pkl", "N."}});
  const Bytes pickle = bytes_of("N.");
  *std::search(file.begin(), file.end(), pickle.begin(), pickle.end()) = std::byte{0x88};
  EXPECT_THAT(error_of(file), HasSubstr("record data.pkl: its checksum does not match"));
}

TEST(WrongArchive, TensorsAreCheckedAgainstTheirRecords) {
  // A tensor of four floats; in its pickle, `sizes` and `strides` in place of (4,) and (1,).
  const auto file = [](std::uint64_t real, std::string_view sizes = "K\x04\x85",
                       std::string_view strides = "K\x01\x85") {
    StateRecorder b;
    test::new_storage(b, 16);
    b.begin_dict();
    b.key("w");
    b.tensor(view(0, DType::float32, {4}, {1}));
    b.end_dict();
    const std::vector<Bytes> storages{pattern(16, 1)};
    // The pickle of one file, the storage of another.
    const MemorySource source(materialize(lay_out_pt(b.recording(), {}), storages));
    const PtArchive archive = PtArchive::open(source);
    std::string pickle(archive.find("data.pkl")->size, '\0');
    source.read(archive.find("data.pkl")->data_offset, std::as_writable_bytes(std::span(pickle)));
    constexpr std::string_view kShape = "K\x04\x85K\x01\x85";
    const std::size_t at = pickle.find(kShape);
    EXPECT_NE(at, std::string::npos);
    pickle.replace(at, kShape.size(), std::string(sizes) + std::string(strides));
    ZipLayout layout("archive");
    layout.add_literal("data.pkl", std::as_bytes(std::span(pickle)));
    if (real > 0) layout.add_literal("data/0", pattern(real, 1));
    return error_of(materialize(std::move(layout).finish(), {}));
  };
  EXPECT_THAT(file(16), HasSubstr("none"));
  EXPECT_THAT(file(0), HasSubstr("key w: record data/0 is missing"));
  EXPECT_THAT(file(15), HasSubstr("record data/0 has 15 bytes, its storage 16"));
  EXPECT_THAT(file(20), HasSubstr("record data/0 has 20 bytes, its storage 16"));
  EXPECT_THAT(file(18), HasSubstr("none")) << "as torch counts whole elements";
  EXPECT_THAT(file(16, "K\x05\x85"), HasSubstr("key w: its last element is number 4"));
  EXPECT_THAT(file(16, "K\x04\x85", "J\xff\xff\xff\xff\x85"), HasSubstr("stride 0 is -1"));
}

TEST(WrongArchive, AnyChangedByteIsReadOrRefused) {
  StateRecorder b;
  test::new_storage(b, 16);
  b.tensor(view(0, DType::float32, {4}, {1}));
  const std::vector<Bytes> storages{pattern(16, 1)};
  const Bytes good = materialize(lay_out_pt(b.recording(), {{}, 1, {{"a", 1.0}}}), storages);
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const int flip : {0x01, 0x08, 0x80, 0xFF}) {
      Bytes changed = good;
      changed[at] ^= static_cast<std::byte>(flip);
      (void)error_of(changed);  // throws nothing but Error, and touches nothing outside
    }
  }
}

}  // namespace
}  // namespace ckptring::plan
