#include "store/direct_reads.h"

#include "store/drive.h"
#include "store/on_disk.h"
#include "store/reading_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <vector>

namespace ckptring::store::test {
namespace {

constexpr std::uint64_t kPage = DirectReads::kUnit;

/// Of a file of which the page cache holds all pages but some.
class PartlyCachedFiles final : public ForwardingFiles {
 public:
  explicit PartlyCachedFiles(std::vector<std::uint64_t> cold_pages)
      : cold_pages_(std::move(cold_pages)) {}

  int open(const std::string& path, int flags, mode_t mode) override {
    return ForwardingFiles::open(path, flags & ~O_DIRECT, mode);
  }
  int mincore(void* address, std::size_t size, unsigned char* pages) override {
    // The kernel checks the range; which page of the file it is it does not tell.
    if (const int result = ForwardingFiles::mincore(address, size, pages); result != 0) {
      return result;
    }
    auto* const first = static_cast<std::byte*>(address);
    if (mapping_ == nullptr) mapping_ = first;  // the test asks about the first page first
    const auto page = static_cast<std::uint64_t>(first - mapping_) / kPage;
    pages[0] = std::ranges::count(cold_pages_, page) == 0 ? 1 : 0;
    return 0;
  }

 private:
  std::vector<std::uint64_t> cold_pages_;
  std::byte* mapping_ = nullptr;
};

TEST(DirectReads, ARangeIsColdIfThePageCacheLacksItsFirstPageOrItsLast) {
  const TemporaryDirectory scratch;
  write_text(scratch / "file", std::string(10 * kPage + 7, 'x'));
  PartlyCachedFiles files({3, 6});
  const auto source = open_file_source(scratch / "file", files);
  const DirectReads direct(*source);
  EXPECT_FALSE(direct.cold(0, kPage));
  EXPECT_FALSE(direct.cold(0, 3 * kPage));
  EXPECT_TRUE(direct.cold(0, 3 * kPage + 1));
  EXPECT_TRUE(direct.cold(3 * kPage, 1));
  EXPECT_TRUE(direct.cold(4 * kPage - 1, kPage));
  EXPECT_FALSE(direct.cold(4 * kPage, 2 * kPage));
  EXPECT_TRUE(direct.cold(6 * kPage + 100, 10));
  EXPECT_FALSE(direct.cold(10 * kPage, 7));
}

TEST(DirectReads, OfAFileThatWasJustWrittenThePageCacheHoldsEverything) {
  const TemporaryDirectory scratch;
  write_text(scratch / "file", std::string(10 * kPage, 'x'));
  const auto source = open_file_source(scratch / "file");
  EXPECT_FALSE(DirectReads(*source).cold(0, 10 * kPage));
}

TEST(DirectReads, NoRangeOfAnEmptyFileOrOfOneThatCannotBeOpenedSoIsCold) {
  const TemporaryDirectory scratch;
  write_text(scratch / "empty", "");
  write_text(scratch / "file", std::string(kPage, 'x'));
  ReadingFiles files;
  files.cold = true;
  files.direct_open_error = EINVAL;
  EXPECT_FALSE(DirectReads(*open_file_source(scratch / "file", files)).cold(0, kPage));
  files.direct_open_error = 0;
  EXPECT_FALSE(DirectReads(*open_file_source(scratch / "empty", files)).cold(0, kPage));
  EXPECT_TRUE(DirectReads(*open_file_source(scratch / "file", files)).cold(0, kPage));
}

TEST(DirectReads, TheFileIsTheOneThatWasOpenedWhateverItsNameIsNow) {
  const TemporaryDirectory scratch;
  write_text(scratch / "file", std::string(kPage, 'a'));
  ReadingFiles files;
  files.cold = true;
  const auto source = open_file_source(scratch / "file", files);
  write_text(scratch / "other", std::string(kPage, 'b'));
  std::filesystem::rename(scratch / "other", scratch / "file");
  const DirectReads direct(*source);
  alignas(kPage) std::array<std::byte, kPage> window{};
  EXPECT_TRUE(direct.cold(0, kPage));
  EXPECT_EQ(direct.read(0, window), kPage);
  EXPECT_EQ(window.front(), std::byte{'a'});
}

}  // namespace
}  // namespace ckptring::store::test
