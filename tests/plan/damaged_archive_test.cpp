// Files that were damaged, or made to do harm: each is refused by name or read as it was, and none
// takes more memory than its size allows.
#include "base/checksum.h"
#include "plan/pt_archive.h"
#include "plan/pt_layout.h"
#include "plan/show.h"
#include "plan/zip_format.h"
#include "support/allocation_meter.h"
#include "support/fault_row.h"
#include "support/materialize.h"
#include "support/memory_source.h"
#include "support/new_storage.h"
#include "support/plan_source.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>

namespace ckptring::plan {
namespace {

using test::AllocationMeter;
using test::Bytes;
using test::MemorySource;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::size_t kKiB = 1024;

/// {"t0": uint8 tensor, ...} over storages of these sizes.
FilePlan plan_of(const std::vector<std::uint64_t>& sizes) {
  StateRecorder b;
  for (const std::uint64_t size : sizes) test::new_storage(b, size);
  b.begin_dict();
  for (std::uint32_t i = 0; i < sizes.size(); ++i) {
    b.key("t" + std::to_string(i));
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(sizes[i])};
    const std::vector<std::int64_t> strides{1};
    b.tensor({DType::uint8, i, 0, shape, strides, false, false, false});
  }
  b.end_dict();
  return lay_out_pt(b.recording(), {{}, 7, {{"note", std::string("hi")}}});
}

Bytes file_of(const std::vector<std::uint64_t>& sizes) {
  std::vector<Bytes> storages;
  storages.reserve(sizes.size());
  for (const std::uint64_t size : sizes) {
    storages.push_back(test::pattern(size, static_cast<std::uint32_t>(storages.size() + 1)));
  }
  return test::materialize(plan_of(sizes), storages);
}

/// A source with some bytes replaced.
class Overlaid final : public ByteSource {
 public:
  explicit Overlaid(const ByteSource& source) : source_(source), size_(source.size()) {}
  void put(std::uint64_t at, std::uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; ++i) {
      changed_[at + i] = static_cast<std::byte>(value >> (8 * i));
    }
  }
  void restore() { changed_.clear(); }
  void cut(std::uint64_t size) { size_ = size; }
  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] const std::string& path() const override { return source_.path(); }
  void read(std::uint64_t offset, std::span<std::byte> bytes) const override {
    if (offset > size_ || bytes.size() > size_ - offset) {
      throw Error(ErrorCode::damaged, "read", path(), "the file ends too early");
    }
    source_.read(offset, bytes);
    for (auto at = changed_.lower_bound(offset);
         at != changed_.end() && at->first < offset + bytes.size(); ++at) {
      bytes[at->first - offset] = at->second;
    }
  }

 private:
  const ByteSource& source_;
  std::uint64_t size_;
  std::map<std::uint64_t, std::byte> changed_;
};

/// What a reader learns of a file: its state, where each record is, what it is said to hold.
std::string sight(const ByteSource& source) {
  const PtArchive archive = PtArchive::open(source);
  std::string out;
  for (const Record& record : archive.records()) {
    out += fmt::format("{} {}+{} {:08x}\n", record.name, record.data_offset, record.size,
                       record.crc32);
  }
  out += fmt::format("step {} ", archive.info().step.value_or(-1));
  return out + show(archive.read_value(source));
}

/// The records whose contents do not match, as `ckptring verify` finds them.
std::vector<std::string> damaged_records(const ByteSource& source) {
  std::vector<std::string> names;
  const PtArchive archive = PtArchive::open(source);
  for (const Record& record : archive.records()) {
    Bytes bytes(record.size);
    source.read(record.data_offset, bytes);
    if (base::crc32(bytes) != record.crc32) names.push_back(record.name);
  }
  return names;
}

/// Reads it; an Error is returned, anything else fails the test. Measures.
std::optional<Error> refusal(const ByteSource& source, std::string& seen, std::size_t most_memory) {
  std::optional<Error> error;
  std::size_t peak = 0;
  {
    const AllocationMeter meter;
    try {
      seen = sight(source);
    } catch (const Error& thrown) {
      error = thrown;
    }
    peak = meter.peak();
  }
  EXPECT_LE(peak, most_memory);
  if (error) {
    EXPECT_THAT(error->code(), ::testing::AnyOf(ErrorCode::damaged, ErrorCode::unsupported_value,
                                                ErrorCode::newer_format));
    EXPECT_EQ(error->path(), source.path());
    EXPECT_FALSE(error->cause().empty());
  }
  return error;
}

/// A field of an archive's structure.
struct Field {
  std::string name;
  std::uint64_t offset;
  unsigned width;
  enum class Change {
    refused,
    without_effect,  ///< nothing is read from it
    either,          ///< some other values are as good
  } change;
};

/// All fields of a sound archive of this library, found without its reader.
class Structure {
 public:
  explicit Structure(const ByteSource& source) : source_(source) {
    end_records();
    std::uint64_t at = central_;
    for (std::uint64_t i = 0; i < records_; ++i) at = central_entry(at);
  }
  [[nodiscard]] const std::vector<Field>& fields() const { return fields_; }

 private:
  std::uint64_t number(std::uint64_t at, unsigned width) const {
    std::uint64_t value = 0;
    source_.read(at, std::as_writable_bytes(std::span(&value, 1)).first(width));
    return value;
  }
  void add(const std::string& name, std::uint64_t offset, unsigned width,
           Field::Change change = Field::Change::refused) {
    fields_.push_back({name, offset, width, change});
  }

  void end_records() {
    const std::uint64_t end = source_.size() - zip::kEndSize;
    add("end signature", end, 4);
    const std::uint64_t locator = end - zip::kLocator64Size;
    const bool zip64 = number(locator, 4) == zip::kLocator64Signature;
    // With a zip64 record they may refer to it.
    const auto number_here = zip64 ? Field::Change::either : Field::Change::refused;
    add("end disk", end + zip::kEndDiskAt, 2, number_here);
    add("end central disk", end + zip::kEndCentralDiskAt, 2, number_here);
    add("end disk records", end + zip::kEndDiskRecordsAt, 2);
    add("end records", end + zip::kEndRecordsAt, 2);
    add("end central size", end + zip::kEndCentralSizeAt, 4, number_here);
    add("end central offset", end + zip::kEndCentralOffsetAt, 4, number_here);
    add("end comment length", end + zip::kEndCommentLengthAt, 2);
    central_ = number(end + zip::kEndCentralOffsetAt, 4);
    records_ = number(end + zip::kEndRecordsAt, 2);
    if (!zip64) return;
    add("locator signature", locator, 4, Field::Change::either);
    add("locator disk", locator + zip::kLocator64DiskAt, 4);
    add("locator offset", locator + zip::kLocator64EndOffsetAt, 8);
    add("locator disks", locator + zip::kLocator64DisksAt, 4, Field::Change::either);
    const std::uint64_t end64 = number(locator + zip::kLocator64EndOffsetAt, 8);
    add("end64 signature", end64, 4);
    add("end64 size", end64 + zip::kEnd64RemainingAt, 8);
    add("end64 versions", end64 + 12, 4, Field::Change::without_effect);
    add("end64 disk", end64 + zip::kEnd64DiskAt, 4);
    add("end64 central disk", end64 + zip::kEnd64CentralDiskAt, 4);
    add("end64 disk records", end64 + zip::kEnd64DiskRecordsAt, 8);
    add("end64 records", end64 + zip::kEnd64RecordsAt, 8);
    add("end64 central size", end64 + zip::kEnd64CentralSizeAt, 8);
    add("end64 central offset", end64 + zip::kEnd64CentralOffsetAt, 8);
    central_ = number(end64 + zip::kEnd64CentralOffsetAt, 8);
    records_ = number(end64 + zip::kEnd64RecordsAt, 8);
  }

  std::uint64_t central_entry(std::uint64_t at) {
    const std::uint64_t name_length = number(at + zip::kCentralNameLengthAt, 2);
    const std::uint64_t extra_length = number(at + zip::kCentralExtraLengthAt, 2);
    std::string name(name_length, '\0');
    source_.read(at + zip::kCentralSize, std::as_writable_bytes(std::span(name)));
    const std::string entry = "central " + name + " ";
    add(entry + "signature", at, 4);
    add(entry + "versions", at + 4, 4, Field::Change::without_effect);
    add(entry + "flags", at + zip::kCentralFlagsAt, 2);
    add(entry + "method", at + zip::kCentralMethodAt, 2);
    add(entry + "time", at + 12, 4, Field::Change::without_effect);
    add(entry + "crc", at + zip::kCentralCrcAt, 4);
    add(entry + "stored size", at + zip::kCentralStoredSizeAt, 4);
    add(entry + "full size", at + zip::kCentralFullSizeAt, 4);
    add(entry + "name length", at + zip::kCentralNameLengthAt, 2);
    add(entry + "extra length", at + zip::kCentralExtraLengthAt, 2);
    add(entry + "comment length", at + zip::kCentralCommentLengthAt, 2);
    add(entry + "disk", at + zip::kCentralDiskAt, 2);
    add(entry + "attributes", at + zip::kCentralDiskAt + 2, 6, Field::Change::without_effect);
    add(entry + "offset", at + zip::kCentralLocalOffsetAt, 4);
    for (std::uint64_t i = 0; i < name_length; ++i) {
      add(entry + "name", at + zip::kCentralSize + i, 1);
    }
    const std::uint64_t extra = at + zip::kCentralSize + name_length;
    std::uint64_t size = number(at + zip::kCentralFullSizeAt, 4);
    std::uint64_t offset = number(at + zip::kCentralLocalOffsetAt, 4);
    if (extra_length > 0) {
      add(entry + "zip64 id", extra, 2);
      add(entry + "zip64 length", extra + 2, 2);
      for (std::uint64_t i = 4; i < extra_length; i += 8) add(entry + "zip64", extra + i, 8);
      if (size == zip::kSee64) size = number(extra + 4, 8);
      if (offset == zip::kSee64) offset = number(extra + extra_length - 8, 8);
    }
    local_header(offset, name, size);
    return extra + extra_length;
  }

  void local_header(std::uint64_t at, const std::string& name, std::uint64_t size) {
    const std::string entry = "local " + name + " ";
    const std::uint64_t extra_length = number(at + zip::kLocalExtraLengthAt, 2);
    add(entry + "signature", at, 4);
    add(entry + "version", at + 4, 2, Field::Change::without_effect);
    add(entry + "flags", at + zip::kLocalFlagsAt, 2);
    add(entry + "method", at + zip::kLocalMethodAt, 2);
    add(entry + "time", at + 10, 4, Field::Change::without_effect);
    add(entry + "crc", at + zip::kLocalCrcAt, 4);
    // The descriptor has them, too: then 0 is as good as a reference to the zip64 field.
    const auto size_here = size >= zip::kSee64 ? Field::Change::either : Field::Change::refused;
    add(entry + "stored size", at + zip::kLocalStoredSizeAt, 4, size_here);
    add(entry + "full size", at + zip::kLocalFullSizeAt, 4, size_here);
    add(entry + "name length", at + zip::kLocalNameLengthAt, 2);
    add(entry + "extra length", at + zip::kLocalExtraLengthAt, 2);
    for (std::uint64_t i = 0; i < name.size(); ++i) {
      add(entry + "name", at + zip::kLocalSize + i, 1);
    }
    std::uint64_t extra = at + zip::kLocalSize + name.size();
    const std::uint64_t data = extra + extra_length;
    if (size >= zip::kSee64) {
      add(entry + "zip64 id", extra, 2);
      add(entry + "zip64 length", extra + 2, 2, Field::Change::either);     // more will do
      add(entry + "zip64 full size", extra + 4, 8, Field::Change::either);  // 0, or as it is
      add(entry + "zip64 stored size", extra + 12, 8, Field::Change::either);
      extra += 20;
    }
    add(entry + "padding", extra, 4, Field::Change::without_effect);
    if ((number(at + zip::kLocalFlagsAt, 2) & zip::kFlagDescriptor) == 0) return;
    const std::uint64_t descriptor = data + size;
    const unsigned width = size >= zip::kSee64 ? 8 : 4;
    add(entry + "descriptor signature", descriptor, 4);
    add(entry + "descriptor crc", descriptor + 4, 4);
    add(entry + "descriptor stored size", descriptor + 8, width);
    add(entry + "descriptor full size", descriptor + 8 + width, width);
  }

  const ByteSource& source_;
  std::uint64_t central_ = 0;
  std::uint64_t records_ = 0;
  std::vector<Field> fields_;
};

/// Other values for a field: every bit turned over, and those that counting goes wrong with.
std::vector<std::uint64_t> other_values(std::uint64_t value, unsigned width) {
  const std::uint64_t all = width == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * width)) - 1;
  std::vector<std::uint64_t> values = {0,           1,         all,       all - 1, all / 2,
                                       all / 2 + 1, value + 1, value - 1, ~value};
  for (unsigned bit = 0; bit < 8 * width; ++bit) values.push_back(value ^ std::uint64_t{1} << bit);
  for (std::uint64_t& other : values) other &= all;
  std::erase(values, value);
  return values;
}

void expect_no_field_can_lie(const std::string& row_name, const ByteSource& sound,
                             std::size_t most_memory) {
  const std::string whole = sight(sound);
  Overlaid changed(sound);
  test::FaultRow row{"damaged: " + row_name};
  const Structure structure(sound);
  for (const Field& field : structure.fields()) {
    std::uint64_t value = 0;
    sound.read(field.offset, std::as_writable_bytes(std::span(&value, 1)).first(field.width));
    for (const std::uint64_t other : other_values(value, field.width)) {
      changed.restore();
      changed.put(field.offset, other, field.width);
      std::string seen;
      const auto error = refusal(changed, seen, most_memory);
      const auto said = [&] {
        return fmt::format("{}: {} -> {}: {}", field.name, value, other,
                           error ? error->what() : "none");
      };
      const auto wrong_if = [&](bool wrong, std::uint64_t& count) {
        EXPECT_FALSE(wrong) << said();
        if (wrong) ++count;
      };
      if (error) {
        wrong_if(field.change == Field::Change::without_effect, row.lost);
      } else {
        wrong_if(field.change == Field::Change::refused || seen != whole, row.torn);
      }
      ++row.cases;
    }
  }
  row.report();
}

void report(const std::string& row, std::uint64_t cases) {
  test::FaultRow{"damaged: " + row, cases, 0, test::broken_expectations()}.report();
}

/// The same archive as one of the large ones, with zip64 end records.
Bytes with_zip64_end(const Bytes& file) {
  const std::uint64_t end = file.size() - zip::kEndSize;
  const auto number = [&](std::uint64_t at, unsigned width) {
    std::uint64_t value = 0;
    std::memcpy(&value, file.data() + at, width);
    return value;
  };
  Bytes out(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(end));
  const auto put = [&](std::uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
  };
  put(zip::kEnd64Signature, 4);
  put(44, 8);
  put(45, 2);
  put(45, 2);
  put(0, 8);
  put(number(end + zip::kEndRecordsAt, 2), 8);
  put(number(end + zip::kEndRecordsAt, 2), 8);
  put(number(end + zip::kEndCentralSizeAt, 4), 8);
  put(number(end + zip::kEndCentralOffsetAt, 4), 8);
  put(zip::kLocator64Signature, 4);
  put(0, 4);
  put(end, 8);
  put(1, 4);
  put(zip::kEndSignature, 4);
  put(0, 4);
  put(zip::kSee64Short, 2);
  put(zip::kSee64Short, 2);
  put(zip::kSee64, 4);
  put(zip::kSee64, 4);
  put(0, 2);
  return out;
}

TEST(DamagedArchive, NoFieldOfItsStructureCanLie) {
  const MemorySource source(file_of({48, 70000, 0, 9}));
  expect_no_field_can_lie("structure, every field", source, 2048 * kKiB);
}

TEST(DamagedArchive, NoFieldOfAZip64EndRecordCanLie) {
  const MemorySource source(with_zip64_end(file_of({48, 0, 9})));
  expect_no_field_can_lie("structure with zip64 end records", source, 2048 * kKiB);
}

TEST(DamagedArchive, NoFieldOfAFileOfManyGiBCanLie) {
  const FilePlan plan = plan_of({std::uint64_t{5} << 30, 100, std::uint64_t{1} << 40, 7});
  expect_no_field_can_lie("structure with zip64 fields", test::PlanSource(plan), 2048 * kKiB);
}

TEST(DamagedArchive, ATurnedByteOfAPayloadIsFoundInItsRecord) {
  const Bytes good = file_of({48, 70000, 0, 9, 300000});
  const MemorySource source(good);
  const PtArchive archive = PtArchive::open(source);
  ASSERT_TRUE(damaged_records(source).empty());
  std::mt19937_64 random(1);
  std::uint64_t cases = 0;
  Overlaid changed(source);
  for (const Record& record : archive.records()) {
    std::vector<std::uint64_t> places;
    if (record.size <= 200) {
      for (std::uint64_t at = 0; at < record.size; ++at) places.push_back(at);
    } else {
      places = {0, record.size / 2, record.size - 1};
      for (int i = 0; i < 200; ++i) places.push_back(random() % record.size);
    }
    for (const std::uint64_t at : places) {
      const auto old = static_cast<std::uint64_t>(good[record.data_offset + at]);
      changed.restore();
      changed.put(record.data_offset + at, old ^ (1 + random() % 255), 1);
      try {
        EXPECT_EQ(damaged_records(changed), std::vector<std::string>{record.name});
      } catch (const Error& error) {
        // Records that are needed to know the file are read when it is opened.
        EXPECT_EQ(error.code(), ErrorCode::damaged);
        EXPECT_THAT(error.what(), HasSubstr("record " + record.name + ": its checksum"));
        EXPECT_EQ(record.name.find("data/"), std::string::npos);
      }
      ++cases;
    }
  }
  report("payload bytes", cases);
}

TEST(DamagedArchive, ThatIsCutOffAnywhereIsRefused) {
  std::uint64_t cases = 0;
  const auto cut = [&](const ByteSource& source, std::uint64_t size) {
    Overlaid shorter(source);
    shorter.cut(size);
    std::string seen;
    EXPECT_TRUE(refusal(shorter, seen, 2048 * kKiB)) << "at " << size;
    ++cases;
  };
  const MemorySource small(file_of({48, 0, 9}));
  for (std::uint64_t size = 0; size < small.size(); ++size) cut(small, size);
  const MemorySource zip64(with_zip64_end(file_of({9})));
  for (std::uint64_t size = 0; size < zip64.size(); ++size) cut(zip64, size);
  const FilePlan plan = plan_of({std::uint64_t{5} << 30, 100});
  const test::PlanSource large(plan);
  const Structure structure(large);
  for (const Field& field : structure.fields()) {
    cut(large, field.offset);
    cut(large, field.offset + field.width - 1);
  }
  report("cut off", cases);
}

TEST(DamagedArchive, AnyByteOfAnyValueIsReadAsItWasOrRefused) {
  const Bytes good = file_of({48, 0, 9});
  const MemorySource source(good);
  const std::string whole = sight(source);
  Overlaid changed(source);
  std::uint64_t cases = 0;
  for (std::uint64_t at = 0; at < good.size(); ++at) {
    const bool every = good.size() - at < 800;  // the central directory
    for (unsigned value = 0; value < 256; value += every ? 1 : 15) {
      changed.restore();
      changed.put(at, value, 1);
      std::string seen;
      if (!refusal(changed, seen, 2048 * kKiB)) {
        EXPECT_EQ(seen, whole) << "byte " << at << " = " << value;
      }
      ++cases;
    }
  }
  report("any byte", cases);
}

TEST(DamagedArchive, RandomDamageOfAnyExtentIsRefusedOrHarmless) {
  const Bytes good = file_of({48, 0, 9, 5000});
  const std::string whole = sight(MemorySource(good));
  std::mt19937_64 random(2);
  constexpr int kCases = 20000;
  for (int i = 0; i < kCases; ++i) {
    Bytes bad = good;
    for (std::uint64_t changes = 1 + random() % 4; changes > 0; --changes) {
      const std::uint64_t at = random() % bad.size();
      const std::uint64_t size = std::min<std::uint64_t>(bad.size() - at, 1 + random() % 64);
      switch (random() % 4) {
        case 0:  // noise
          for (std::uint64_t j = 0; j < size; ++j) {
            bad[at + j] = static_cast<std::byte>(random());
          }
          break;
        case 1:  // a lost sector
          std::memset(bad.data() + at, 0, size);
          break;
        case 2:  // a part of it elsewhere
          std::memmove(bad.data() + random() % (bad.size() - size + 1), bad.data() + at, size);
          break;
        default:  // a piece is missing
          bad.erase(bad.begin() + static_cast<std::ptrdiff_t>(at),
                    bad.begin() + static_cast<std::ptrdiff_t>(at + size));
      }
      if (bad.empty()) break;
    }
    std::string seen;
    const MemorySource source(bad);
    if (!refusal(source, seen, 2048 * kKiB)) {
      EXPECT_EQ(seen, whole);
    }
  }
  report("random damage", kCases);
}

// Made to do harm: records without a plan behind them.

struct Made {
  std::string name;
  std::uint64_t offset = 0;  ///< as the central directory states it, with `size`
  std::uint64_t size = 0;
};

void put(Bytes& out, std::uint64_t value, unsigned width) {
  for (unsigned i = 0; i < width; ++i)
    out.push_back(static_cast<std::byte>(i < 8 ? value >> (8 * i) : 0));
}
void put(Bytes& out, std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// A central directory that says what it is told, behind `body`; all numbers in zip64 fields.
Bytes archive_saying(Bytes body, const std::vector<Made>& records, std::uint64_t count) {
  const std::uint64_t central = body.size();
  for (const Made& record : records) {
    put(body, zip::kCentralSignature, 4);
    put(body, 0, 4);
    put(body, 0, 2);  // flags
    put(body, 0, 2);  // stored
    put(body, 0, 4);
    put(body, 0, 4);  // crc
    put(body, zip::kSee64, 4);
    put(body, zip::kSee64, 4);
    put(body, record.name.size(), 2);
    put(body, 28, 2);
    put(body, 0, 10);
    put(body, zip::kSee64, 4);
    put(body, record.name);
    put(body, zip::kExtraZip64, 2);
    put(body, 24, 2);
    put(body, record.size, 8);
    put(body, record.size, 8);
    put(body, record.offset, 8);
  }
  const std::uint64_t end64 = body.size();
  put(body, zip::kEnd64Signature, 4);
  put(body, 44, 8);
  put(body, 0, 12);
  put(body, count, 8);
  put(body, count, 8);
  put(body, end64 - central, 8);
  put(body, central, 8);
  put(body, zip::kLocator64Signature, 4);
  put(body, 0, 4);
  put(body, end64, 8);
  put(body, 1, 4);
  put(body, zip::kEndSignature, 4);
  put(body, 0, 4);
  put(body, zip::kSee64Short, 2);
  put(body, zip::kSee64Short, 2);
  put(body, zip::kSee64, 4);
  put(body, zip::kSee64, 4);
  put(body, 0, 2);
  return body;
}

Bytes local_header(const std::string& name, std::uint64_t size) {
  Bytes out;
  put(out, zip::kLocalSignature, 4);
  put(out, 0, 6);
  put(out, 0, 4);
  put(out, 0, 4);  // crc
  put(out, size, 4);
  put(out, size, 4);
  put(out, name.size(), 2);
  put(out, 0, 2);
  put(out, name);
  return out;
}

std::string refused(const Bytes& file) {
  std::string seen;
  const auto error = refusal(MemorySource(file), seen, 64 * kKiB + 8 * file.size());
  return error ? std::string(to_string(error->code())) + ": " + error->what() : "none: " + seen;
}

TEST(HostileArchive, OffsetsAndSizesThatOverlapOrOverflowAreRefused) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  Bytes body = local_header("a/data.pkl", 2);
  put(body, "N.");
  const std::uint64_t second = body.size();
  const Bytes other = local_header("a/data/0", 4);
  body.insert(body.end(), other.begin(), other.end());
  put(body, "0123");
  const auto with = [&](const Made& first, const Made& last) {
    return refused(archive_saying(body, {first, last}, 2));
  };
  const Made pickle{"a/data.pkl", 0, 2};
  const Made data{"a/data/0", second, 4};
  // As it is made: without checksums.
  EXPECT_THAT(with(pickle, data), HasSubstr("none: data.pkl 40+2 00000000"));
  std::uint64_t cases = 1;
  for (const std::uint64_t size :
       {kMost, kMost - 1, kMost - second, kMost / 2, std::uint64_t{5}, std::uint64_t{1000000}}) {
    EXPECT_THAT(with(pickle, {"a/data/0", second, size}),
                AllOf(StartsWith("damaged: "), HasSubstr("record a/data/0: ")))
        << size;
    ++cases;
  }
  for (const std::uint64_t offset :
       {kMost, kMost - 3, kMost - second, kMost / 2 + 1, std::uint64_t{body.size()},
        body.size() - 1, second - 1, second + 1, std::uint64_t{0}, std::uint64_t{1}}) {
    EXPECT_THAT(with(pickle, {"a/data/0", offset, 4}), ::testing::Not(HasSubstr("none"))) << offset;
    ++cases;
  }
  // One record within another, two in one place, in the wrong order.
  EXPECT_THAT(with({"a/data.pkl", 0, 60}, data), HasSubstr("a/data.pkl: it overlaps"));
  EXPECT_THAT(with({"a/data/0", second, 4}, {"a/data/1", second, 4}), HasSubstr("overlaps"));
  EXPECT_THAT(with(data, {"a/data.pkl", second, 2}), HasSubstr("overlaps"));
  report("offsets and sizes", cases + 3);
}

TEST(HostileArchive, CountsThatCannotBeAreRefusedBeforeMemoryIsTaken) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  Bytes body = local_header("a/data.pkl", 2);
  put(body, "N.");
  std::uint64_t cases = 0;
  for (const std::uint64_t count : {kMost, kMost / 2, kMost / 46, std::uint64_t{1} << 32,
                                    std::uint64_t{65536}, std::uint64_t{2}, std::uint64_t{0}}) {
    EXPECT_THAT(refused(archive_saying(body, {{"a/data.pkl", 0, 2}}, count)), HasSubstr("record"))
        << count;
    ++cases;
  }
  // A directory of which every byte is a record's, in a file that is otherwise empty.
  EXPECT_THAT(refused(archive_saying({}, {}, 0)), HasSubstr("no records"));
  report("counts", cases + 1);
}

/// Counts how often it is asked.
class CountedSource final : public ByteSource {
 public:
  explicit CountedSource(const Bytes& bytes) : source_(bytes) {}
  [[nodiscard]] std::uint64_t size() const override { return source_.size(); }
  [[nodiscard]] const std::string& path() const override { return source_.path(); }
  void read(std::uint64_t offset, std::span<std::byte> bytes) const override {
    ++reads_;
    source_.read(offset, bytes);
  }
  [[nodiscard]] std::size_t reads() const { return reads_; }

 private:
  MemorySource source_;
  mutable std::size_t reads_ = 0;
};

TEST(HostileArchive, WhatWasAppendedIsNamedAndTakesFewReads) {
  constexpr std::size_t kMiB = 1024 * kKiB;
  const auto with = [](std::size_t size) {
    Bytes file = file_of({48});
    constexpr std::string_view kSignature = "PK\5\6";
    for (std::size_t i = 0; i < size; ++i) {
      file.push_back(static_cast<std::byte>(kSignature[i % kSignature.size()]));
    }
    return file;
  };
  const auto words = [](const CountedSource& source) {
    try {
      (void)PtArchive::open(source);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::damaged);
      return std::string(error.what());
    }
    return std::string("read");
  };
  for (const std::size_t size : {100 * kKiB, 15 * kMiB}) {
    const CountedSource source(with(size));
    EXPECT_THAT(words(source), HasSubstr(fmt::format("{} bytes follow the end", size)));
    EXPECT_LT(source.reads(), 300U);
  }
  const CountedSource more(with(17 * kMiB));
  EXPECT_THAT(words(more), HasSubstr("cut off, or more than 16 MiB were appended"));
  EXPECT_LT(more.reads(), 300U);
  Bytes short_file = file_of({48});
  short_file.erase(short_file.end() - 30, short_file.end());
  EXPECT_THAT(words(CountedSource(short_file)), ::testing::EndsWith("the file is cut off"));
}

TEST(HostileArchive, NamesThatLeadOutAreRefused) {
  const std::vector<std::string> names = {
      "../data.pkl", "a/../../data.pkl",  "a/..", "..", "/etc/passwd",
      "/",           "a/data/../../../x", "//x"};
  for (const std::string& name : names) {
    Bytes body = local_header(name, 2);
    put(body, "N.");
    EXPECT_THAT(refused(archive_saying(body, {{name, 0, 2}}, 1)),
                HasSubstr("record " + name + ": its name leads out of the archive"));
  }
  // Dots as such are none of that.
  Bytes body = local_header("a/..b/c..", 2);
  put(body, "N.");
  EXPECT_THAT(refused(archive_saying(body, {{"a/..b/c..", 0, 2}}, 1)),
              HasSubstr("data.pkl is missing"));
  report("names", names.size());
}

TEST(HostileArchive, AnArchiveWithinAPayloadIsNotTakenForTheFile) {
  // The end of the file decides; what looks like its end record earlier is a payload.
  const Bytes inner = file_of({9});
  std::vector<Bytes> storages{inner};
  const Bytes outer = test::materialize(plan_of({inner.size()}), storages);
  const MemorySource source(outer);
  EXPECT_THAT(sight(source), HasSubstr(fmt::format("+{} ", inner.size())));
  EXPECT_TRUE(damaged_records(source).empty());
  EXPECT_EQ(PtArchive::open(source).find("data/0")->size, inner.size());
}

}  // namespace
}  // namespace ckptring::plan
