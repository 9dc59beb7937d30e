#include "store/record_reads.h"

#include "base/checksum.h"
#include "store/drive.h"
#include "store/on_disk.h"
#include "store/reading_files.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <random>
#include <stdexcept>

namespace ckptring::store::test {
namespace {

using Fault = ReadingFiles::Fault;
using testing::HasSubstr;

constexpr std::uint64_t kMiB = 1u << 20;

std::string noise(std::size_t size) {
  std::mt19937_64 random(size);
  std::string bytes(size, '\0');
  for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
    const std::uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, std::min(sizeof word, size - at));
  }
  return bytes;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

/// Only takes, as memory does that a file cannot be read to.
class TakingTarget final : public ReadTarget {
 public:
  explicit TakingTarget(std::string& bytes) : bytes_(bytes) {}
  std::byte* memory(std::uint64_t /*offset*/) noexcept override { return nullptr; }
  void take(std::uint64_t offset, std::span<const std::byte> bytes) override {
    std::memcpy(bytes_.data() + offset, bytes.data(), bytes.size());
  }

 private:
  std::string& bytes_;
};

class BrokenTarget final : public ReadTarget {
 public:
  std::byte* memory(std::uint64_t /*offset*/) noexcept override { return nullptr; }
  void take(std::uint64_t /*offset*/, std::span<const std::byte> /*bytes*/) override {
    throw std::runtime_error("full");
  }
};

class RecordReadsTest : public testing::Test {
 protected:
  /// A file with records of these sizes, each after a gap.
  struct Place {
    std::uint64_t gap;
    std::uint64_t size;
  };
  void make_file(const std::vector<Place>& places) {
    std::string file;
    records_.clear();
    for (const Place& place : places) {
      file += noise(place.gap);
      const std::string bytes = noise(place.size);
      records_.push_back({"data/" + std::to_string(records_.size()), file.size(), place.size,
                          base::crc32(bytes_of(bytes))});
      file += bytes;
    }
    write_text(path(), file);
    file_ = file;
    source_ = open_file_source(path(), files);
  }
  /// Records of several chunks, of less than one, side by side and apart; the last one ends the
  /// file within a page.
  void make_varied_file() {
    make_file({{63, 1},
               {30, 100},
               {4000, kMiB - 5000},
               {64, 3 * kMiB + 5},
               {20'000, 4096},
               {2 * kMiB, 5 * kMiB},
               {0, 17},
               {90, 2 * kMiB + 1111}});
  }

  [[nodiscard]] std::string path() const { return directory_ / "file"; }
  [[nodiscard]] const plan::Record& record(std::size_t index) const { return records_[index]; }
  [[nodiscard]] std::size_t record_count() const { return records_.size(); }
  [[nodiscard]] std::string saved(std::size_t index, std::uint64_t begin, std::uint64_t end) const {
    return file_.substr(record(index).data_offset + begin, end - begin);
  }
  void damage(std::size_t index, std::uint64_t at) {
    file_[record(index).data_offset + at] ^= 1;
    write_text(path(), file_);
    source_ = open_file_source(path(), files);
  }
  void truncate(std::uint64_t size) {
    ASSERT_EQ(::truncate(path().c_str(), static_cast<off_t>(size)), 0);
  }

  void want(std::size_t index, std::uint64_t begin, std::uint64_t end) {
    std::string& memory = memories_.emplace_back(end - begin, '\0');
    targets_.emplace_back(reinterpret_cast<std::byte*>(memory.data()));
    parts.push_back({&record(index), begin, end, &targets_.back()});
    expected_.push_back(saved(index, begin, end));
  }
  void want_all() {
    for (std::size_t i = 0; i < record_count(); ++i) want(i, 0, record(i).size);
  }
  [[nodiscard]] const std::string& got(std::size_t part) const { return memories_[part]; }

  std::optional<ReadFailure> run(bool check = true, unsigned threads = 2) {
    return RecordReads(*source_, threads).run(parts, check);
  }
  /// That everything wanted is there, in either way.
  void expect_all(bool check = true, unsigned threads = 2) {
    const auto failure = run(check, threads);
    ASSERT_FALSE(failure) << error_of([&] { std::rethrow_exception(failure->error); }).what();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      EXPECT_TRUE(got(i) == expected_[i]) << "part " << i;
      EXPECT_TRUE(parts[i].touched) << "part " << i;
    }
  }
  /// What was met, and at which part.
  std::pair<Error, std::size_t> failure_of(bool check = true) {
    const auto failure = run(check);
    if (!failure) {
      ADD_FAILURE() << "all is well";
      return {Error(ErrorCode::ok, "", "", ""), 0};
    }
    return {error_of([&] { std::rethrow_exception(failure->error); }), failure->part};
  }

  ReadingFiles files;
  std::vector<ReadPart> parts;

 private:
  TemporaryDirectory directory_;
  std::string file_;
  std::vector<plan::Record> records_;
  std::unique_ptr<FileSource> source_;
  std::deque<std::string> memories_;
  std::deque<HostTarget> targets_;
  std::vector<std::string> expected_;
};

/// Of what must be so whether the page cache holds the file or not.
class EitherWay : public RecordReadsTest, public testing::WithParamInterface<bool> {
 protected:
  EitherWay() { files.cold = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(RecordReads, EitherWay, testing::Bool(),
                         [](const auto& cold) { return cold.param ? "Cold" : "Warm"; });

TEST_P(EitherWay, EachByteGetsToItsPlace) {
  make_varied_file();
  want_all();
  expect_all();
}

TEST_P(EitherWay, OneThreadAloneWillDoAndSoWillMany) {
  make_file({{100, 20 * kMiB}});
  want_all();
  expect_all(true, 1);
  expect_all(true, 13);
}

TEST_P(EitherWay, NothingIsWantedOfAnEmptyFile) {
  make_file({});
  EXPECT_FALSE(run());
  EXPECT_EQ(files.direct_reads() + files.cached_reads(), 0u);
}

TEST_P(EitherWay, WithoutChecksOnlyWhatIsWantedIsRead) {
  make_varied_file();
  want(3, kMiB + 10'000, kMiB + 10'010);
  want(3, kMiB + 600'000, kMiB + 600'010);  // in the same chunk, but not near
  want(5, 100, 2 * kMiB);
  want(5, 4 * kMiB, 4 * kMiB + 1);
  expect_all(false);
  EXPECT_LT(files.direct_bytes() + files.cached_bytes(), 2 * kMiB + 8 * 4096);
}

TEST_P(EitherWay, PartsOfARecordAreCheckedTogether) {
  make_varied_file();
  want(3, 0, 700'000);
  parts.push_back({&record(3), 700'000, 2'000'000, nullptr});
  want(3, 2'000'000, record(3).size);
  EXPECT_FALSE(run());
  EXPECT_EQ(got(0), saved(3, 0, 700'000));
  EXPECT_EQ(got(1), saved(3, 2'000'000, record(3).size));
  EXPECT_FALSE(parts[1].touched);

  damage(3, 1'500'000);
  const auto [error, part] = failure_of();
  EXPECT_EQ(error.code(), ErrorCode::damaged);
  EXPECT_EQ(parts[part].record, &record(3));
}

TEST_P(EitherWay, ADamagedRecordIsNamed) {
  make_varied_file();
  damage(5, 4 * kMiB);
  want_all();
  const auto [error, part] = failure_of();
  EXPECT_EQ(part, 5u);
  EXPECT_EQ(error.code(), ErrorCode::damaged);
  EXPECT_THAT(error.what(), HasSubstr("record data/5 has CRC-32"));
  EXPECT_TRUE(parts[5].touched);
}

TEST_P(EitherWay, ADamagedRecordDoesNotMatterWithoutChecks) {
  make_varied_file();
  damage(5, 4 * kMiB);
  want_all();
  expect_all(false);
}

TEST_P(EitherWay, WhatIsOnlyCheckedTouchesNothing) {
  make_varied_file();
  for (std::size_t i = 0; i < record_count(); ++i) {
    parts.push_back({&record(i), 0, record(i).size, nullptr});
  }
  EXPECT_FALSE(run());
  EXPECT_TRUE(std::ranges::none_of(parts, &ReadPart::touched));
  damage(7, 0);
  EXPECT_EQ(failure_of().second, 7u);
}

TEST_P(EitherWay, TargetsWithoutMemoryTakeTheirBytes) {
  make_varied_file();
  std::deque<std::string> taken;
  std::deque<TakingTarget> targets;
  for (std::size_t i = 0; i < record_count(); ++i) {
    targets.emplace_back(taken.emplace_back(record(i).size, '\0'));
    parts.push_back({&record(i), 0, record(i).size, &targets.back()});
  }
  EXPECT_FALSE(run());
  for (std::size_t i = 0; i < record_count(); ++i) {
    EXPECT_TRUE(taken[i] == saved(i, 0, record(i).size)) << i;
    EXPECT_TRUE(parts[i].touched) << i;
  }
}

TEST_P(EitherWay, WhatATargetThrowsIsTheFailure) {
  make_varied_file();
  BrokenTarget broken;
  parts.push_back({&record(4), 0, record(4).size, &broken});
  const auto failure = run();
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->part, 0u);
  EXPECT_THROW(std::rethrow_exception(failure->error), std::runtime_error);
  EXPECT_TRUE(parts[0].touched);
}

TEST_P(EitherWay, AFileThatBecameShorterEndsTooEarly) {
  make_varied_file();
  want_all();
  truncate(record(7).data_offset + 2 * kMiB);
  const auto [error, part] = failure_of();
  EXPECT_EQ(part, 7u);
  EXPECT_EQ(error.code(), ErrorCode::damaged);
  EXPECT_THAT(error.what(), HasSubstr("ends too early"));
}

TEST_P(EitherWay, AFailingDiskIsNamed) {
  make_varied_file();
  want_all();
  files.fault = [&](const ReadingFiles::Read& read) -> std::optional<Fault> {
    const std::uint64_t bad = record(5).data_offset + 3 * kMiB;
    if (read.offset <= bad && bad < read.offset + read.size) return Fault{.error = EIO};
    return std::nullopt;
  };
  const auto [error, part] = failure_of();
  EXPECT_EQ(part, 5u);
  EXPECT_EQ(error.code(), ErrorCode::io);
  EXPECT_EQ(error.errno_value(), EIO);
}

TEST_P(EitherWay, InterruptedReadsAreRepeated) {
  make_varied_file();
  want_all();
  files.fault = [](const ReadingFiles::Read& read) -> std::optional<Fault> {
    if (read.number % 2 == 0) return Fault{.error = EINTR};
    return std::nullopt;
  };
  expect_all();
}

TEST_P(EitherWay, ShortReadsGoOn) {
  make_varied_file();
  want_all();
  files.fault = [](const ReadingFiles::Read&) { return Fault{.only_bytes = 5 * 4096}; };
  expect_all();
  EXPECT_EQ(files.cached_bytes() == 0, files.cold);
}

using RecordReadsFrom = RecordReadsTest;

TEST_F(RecordReadsFrom, ThePageCacheWhatItHolds) {
  make_varied_file();
  want_all();
  expect_all();
  EXPECT_EQ(files.direct_reads(), 0u);
}

TEST_F(RecordReadsFrom, TheDiskWhatThePageCacheDoesNotHold) {
  files.cold = true;
  make_varied_file();
  want_all();
  expect_all();
  EXPECT_EQ(files.cached_reads(), 0u);
}

TEST_F(RecordReadsFrom, TheDiskAsFewRequestsAsThereAreChunks) {
  files.cold = true;
  make_file(std::vector<Place>(64, {100, 16'000}));
  want_all();
  expect_all();
  EXPECT_LE(files.direct_reads(), 64 * 16'100 / kMiB + 1);
}

TEST_F(RecordReadsFrom, ThePageCacheWhereDirectFilesAreRefused) {
  files.cold = true;
  files.direct_open_error = EINVAL;
  make_varied_file();
  want_all();
  expect_all();
  EXPECT_GT(files.cached_reads(), 0u);
}

TEST_F(RecordReadsFrom, ThePageCacheWhereNobodyMaySayWhatItHolds) {
  files.cold = true;
  files.mincore_error = EPERM;
  make_varied_file();
  want_all();
  expect_all();
  EXPECT_EQ(files.direct_reads(), 0u);
}

class Refusing : public RecordReadsTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(RecordReads, Refusing, testing::Values(EINVAL, EOPNOTSUPP));

TEST_P(Refusing, ADirectReadThatIsRefusedIsTheLast) {
  files.cold = true;
  make_file({{100, 40 * kMiB}});
  want_all();
  files.fault = [](const ReadingFiles::Read& read) -> std::optional<Fault> {
    if (read.direct) return Fault{.error = GetParam()};
    return std::nullopt;
  };
  expect_all();
  EXPECT_LE(files.direct_reads(), 8u);  // those that were under way at the same time
}

TEST_F(RecordReadsFrom, ThePageCacheWhereADirectReadStopsWithinAPage) {
  files.cold = true;
  make_varied_file();
  want_all();
  files.fault = [](const ReadingFiles::Read& read) -> std::optional<Fault> {
    if (read.direct) return Fault{.only_bytes = 3 * 4096 + 512};
    return std::nullopt;
  };
  expect_all();
  EXPECT_GT(files.cached_reads(), 0u);
}

TEST_F(RecordReadsFrom, ADamagedRecordOfOneChunkNothingThatIsKept) {
  files.cold = true;
  make_varied_file();
  damage(4, 1000);
  want(4, 0, record(4).size);
  EXPECT_EQ(failure_of().second, 0u);
  EXPECT_FALSE(parts[0].touched);
  EXPECT_EQ(got(0), std::string(record(4).size, '\0'));
}

}  // namespace
}  // namespace ckptring::store::test
