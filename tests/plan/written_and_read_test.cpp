// Whatever is written can be read: the limits of both are the same.
#include "plan/pickle_opcodes.h"
#include "plan/pt_archive.h"
#include "plan/pt_layout.h"
#include "plan/show.h"
#include "plan/value_memory.h"
#include "support/colliding_ints.h"
#include "support/materialize.h"
#include "support/memory_source.h"
#include "support/new_storage.h"

#include <ckptring/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace ckptring::plan {
namespace {

using test::Bytes;
using test::materialize;
using test::MemorySource;

using Build = std::function<void(StateRecorder&)>;

/// Whether it can be written; what was written must be readable.
bool written_and_read(const Build& build) {
  StateRecorder recorder;
  Bytes file;
  try {
    build(recorder);
    file = materialize(lay_out_pt(recorder.recording(), {}),
                       std::vector<Bytes>(1, test::pattern(64, 1)));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value) << error.what();
    return false;
  }
  const MemorySource source(file);
  EXPECT_NO_THROW((void)PtArchive::open(source).read_value(source));
  return true;
}

TEST(WrittenAndRead, TensorsOfAnyNumberOfDimensions) {
  for (const std::size_t dimensions : {1024U, 1025U, 100000U}) {
    EXPECT_TRUE(written_and_read([&](StateRecorder& b) {
      test::new_storage(b, 64);
      const std::vector<std::int64_t> ones(dimensions, 1);
      b.tensor({DType::float32, 0, 0, ones, ones, false, false, false});
    }));
  }
}

TEST(WrittenAndRead, AsManyLevelsAsThereMayBe) {
  for (unsigned levels = kMaxDepth - 1; levels <= kMaxDepth + 1; ++levels) {
    // A lazy bit is written as a dict, which is no level.
    const Build build = [&](StateRecorder& b) {
      test::new_storage(b, 64);
      for (unsigned i = 0; i < levels; ++i) b.begin_list();
      const std::vector<std::int64_t> one(1, 1);
      b.tensor({DType::complex64, 0, 0, one, one, false, true, true});
      for (unsigned i = 0; i < levels; ++i) b.end_list();
    };
    EXPECT_EQ(written_and_read(build), levels <= kMaxDepth) << levels;
  }
}

TEST(WrittenAndRead, AsManyEmptyContainersAsMemoryAllows) {
  struct Kind {
    std::function<void(StateRecorder&)> one;
    std::size_t few;   ///< that may be written
    std::size_t many;  ///< that may not
  };
  const std::vector<Kind> kinds = {
      {[](StateRecorder& b) {
         b.begin_dict();
         b.end_dict();
       },
       100000, 1000000},
      {[](StateRecorder& b) {
         b.begin_list();
         b.end_list();
       },
       1000000, 3000000},
      {[](StateRecorder& b) {
         b.begin_dict();
         b.key(1);
         b.none();
         b.end_dict();
       },
       200000, 5000000},
  };
  for (const Kind& kind : kinds) {
    // The largest number that can be written, by halving; each on the way is read.
    std::size_t can = kind.few;
    std::size_t cannot = kind.many;
    const auto can_write = [&](std::size_t count) {
      return written_and_read([&](StateRecorder& b) {
        b.begin_list();
        for (std::size_t i = 0; i < count; ++i) kind.one(b);
        b.end_list();
      });
    };
    ASSERT_TRUE(can_write(can));
    ASSERT_FALSE(can_write(cannot));
    for (int step = 0; step < 4; ++step) {
      const std::size_t middle = can + (cannot - can) / 2;
      (can_write(middle) ? can : cannot) = middle;
    }
  }
}

TEST(WrittenAndRead, TheWriterCountsMemoryAsTheReaderDoes) {
  const auto file_of = [](std::size_t count) -> std::optional<Bytes> {
    StateRecorder b;
    b.begin_list();
    for (std::size_t i = 0; i < count; ++i) {
      b.begin_dict();
      for (const std::int64_t key : {1, 2}) {
        b.key(key);
        b.begin_dict();
        b.end_dict();
      }
      b.end_dict();
    }
    b.end_list();
    try {
      return materialize(lay_out_pt(b.recording(), {}), {});
    } catch (const Error&) {
      return std::nullopt;
    }
  };
  std::size_t can = 10000;
  std::size_t cannot = 200000;
  while (cannot - can > 1) {
    const std::size_t middle = can + (cannot - can) / 2;
    (file_of(middle) ? can : cannot) = middle;
  }
  const std::optional<Bytes> file = file_of(can);
  ASSERT_TRUE(file);
  const MemorySource source(*file);
  const PtArchive archive = PtArchive::open(source);
  const std::uint64_t limit = ValueMemory::limit(archive.find("data.pkl")->size);
  const std::uint64_t counted = archive.read_value(source).value_bytes();
  EXPECT_LE(counted, limit);
  EXPECT_GT(counted + 4096, limit) << "one more would be too much for the reader as well";
}

TEST(WrittenAndRead, KeysThatCollideAreRefusedByBoth) {
  for (const std::uint64_t count : {8U, 12U, 13U, 30U}) {
    const bool written = written_and_read([&](StateRecorder& b) {
      b.begin_dict();
      for (std::uint64_t i = 0; i < count; ++i) {
        b.key(static_cast<std::int64_t>(test::colliding_int(i)));
        b.begin_dict();  // whose own keys are counted by themselves
        b.key("x");
        b.none();
        b.end_dict();
      }
      b.end_dict();
    });
    EXPECT_EQ(written, count < 13) << count;
  }
}

/// A value of any kind, nested.
void any_value(StateRecorder& b, std::mt19937_64& random, unsigned depth) {
  const auto below = [&](std::uint64_t most) { return random() % most; };
  switch (depth >= 12 ? below(6) : below(9)) {
    case 0:
      return b.none();
    case 1:
      return b.boolean(below(2) == 0);
    case 2:
      return b.integer(static_cast<std::int64_t>(random() >> below(64)));
    case 3:
      return b.real(1.0 / static_cast<double>(random()));
    case 4:
      return b.string(std::string(below(300), static_cast<char>('a' + below(26))));
    case 5: {
      const std::vector<std::int64_t> sizes(below(6), 1);
      b.tensor({DType::float32, 0, 3, sizes, sizes, false, false, below(2) == 0});
      return;
    }
    case 6:
      b.begin_list();
      for (std::uint64_t i = below(6); i > 0; --i) any_value(b, random, depth + 1);
      return b.end_list();
    case 7:
      b.begin_tuple();
      for (std::uint64_t i = below(6); i > 0; --i) any_value(b, random, depth + 1);
      return b.end_tuple();
    default:
      b.begin_dict();
      for (std::uint64_t i = below(6); i > 0; --i) {
        if (below(2) == 0) {
          b.key(static_cast<std::int64_t>(8 * i));
        } else {
          b.key(std::string(i, 'k'));
        }
        any_value(b, random, depth + 1);
      }
      return b.end_dict();
  }
}

TEST(WrittenAndRead, AnyValue) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    std::mt19937_64 random(seed);
    EXPECT_TRUE(written_and_read([&](StateRecorder& b) {
      test::new_storage(b, 64);
      any_value(b, random, 0);
    }));
  }
}

}  // namespace
}  // namespace ckptring::plan
