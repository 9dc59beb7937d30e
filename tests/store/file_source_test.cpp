#include "store/file_source.h"

#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <utility>

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

TEST(FileSource, NamesALinkThatLeadsToNothing) {
  const TemporaryDirectory scratch;
  std::filesystem::create_symlink("nothing", scratch / "link");
  std::filesystem::create_directory(scratch / "step");
  std::filesystem::create_symlink("nothing", scratch / "step/checkpoint_0.pt");
  for (const char* path : {"link", "link/checkpoint_0.pt", "step/checkpoint_0.pt"}) {
    const Error error = error_of([&] { (void)open_file_source(scratch / path); });
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    EXPECT_NE(error.cause().find("is a symbolic link, and leads to nothing"), std::string::npos)
        << error.what();
  }
}

TEST(OpenCheckpoint, TakesADirectoryOrAFile) {
  const TemporaryDirectory scratch;
  std::filesystem::create_directory(scratch / "step");
  write_text(scratch / "step/checkpoint_3.pt", "three");
  EXPECT_EQ(open_checkpoint(scratch / "step", 3)->path(), scratch / "step/checkpoint_3.pt");
  EXPECT_EQ(open_checkpoint(scratch / "step/checkpoint_3.pt", 0)->path(),
            scratch / "step/checkpoint_3.pt");
  const Error error = error_of([&] { (void)open_checkpoint(scratch / "step", 0); });
  EXPECT_EQ(error.code(), ErrorCode::not_found);
  EXPECT_EQ(error.path(), scratch / "step/checkpoint_0.pt");
  EXPECT_EQ(error_of([&] { (void)open_checkpoint("", 0); }).code(), ErrorCode::invalid_argument);
}

TEST(OpenCheckpoint, BesideTheSaveThatMakesTheDirectoryFindsNothingOrTheFile) {
  // Looked at, it is not there yet; opened, it is.
  class MadeInBetween final : public ForwardingFiles {
   public:
    explicit MadeInBetween(std::function<void()> make) : make_(std::move(make)) {}
    int stat(const std::string& path, struct ::stat& out, bool follow) override {
      const int result = ForwardingFiles::stat(path, out, follow);
      const int error = errno;
      make_();
      errno = error;
      return result;
    }

   private:
    std::function<void()> make_;
  };
  const TemporaryDirectory scratch;
  MadeInBetween without([&] { std::filesystem::create_directory(scratch / "step"); });
  EXPECT_EQ(error_of([&] { (void)open_checkpoint(scratch / "step", 0, without); }).code(),
            ErrorCode::not_found);
  std::filesystem::remove_all(scratch / "step");
  MadeInBetween with([&] {
    std::filesystem::create_directory(scratch / "step");
    write_text(scratch / "step/checkpoint_0.pt", "it");
  });
  EXPECT_EQ(open_checkpoint(scratch / "step", 0, with)->size(), 2U);
}

}  // namespace
}  // namespace ckptring::store::test
