#include "store/file_source.h"

#include "store/drive.h"
#include "store/on_disk.h"

#include <sys/stat.h>
#include <unistd.h>

namespace ckptring::store::test {
namespace {

TEST(FileSource, ReadsAnyRange) {
  const TemporaryDirectory scratch;
  write_text(scratch / "file", "0123456789");
  const auto source = open_file_source(scratch / "file");
  EXPECT_EQ(source->size(), 10U);
  EXPECT_EQ(source->path(), scratch / "file");
  std::array<std::byte, 4> bytes{};
  source->read(3, bytes);
  EXPECT_EQ(std::memcmp(bytes.data(), "3456", 4), 0);
  source->read(10, {});
}

TEST(FileSource, SaysThatTheFileEndsTooEarly) {
  const TemporaryDirectory scratch;
  write_text(scratch / "file", "0123456789");
  const auto source = open_file_source(scratch / "file");
  std::array<std::byte, 4> bytes{};
  EXPECT_EQ(error_of([&] { source->read(7, bytes); }).code(), ErrorCode::damaged);
  EXPECT_EQ(error_of([&] { source->read(~0ULL - 1, bytes); }).code(), ErrorCode::damaged);
  ASSERT_EQ(::truncate((scratch / "file").c_str(), 5), 0);
  EXPECT_EQ(error_of([&] { source->read(3, bytes); }).code(), ErrorCode::damaged);
}

TEST(FileSource, RefusesWhatIsNotAFile) {
  const TemporaryDirectory scratch;
  EXPECT_EQ(error_of([&] { (void)open_file_source(scratch / "none"); }).code(),
            ErrorCode::not_found);
  EXPECT_EQ(error_of([&] { (void)open_file_source(scratch.path()); }).code(),
            ErrorCode::invalid_argument);
  EXPECT_EQ(error_of([&] { (void)open_file_source(""); }).code(), ErrorCode::invalid_argument);
  ASSERT_EQ(::mkfifo((scratch / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { (void)open_file_source(scratch / "fifo"); }).code(),
            ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace ckptring::store::test
