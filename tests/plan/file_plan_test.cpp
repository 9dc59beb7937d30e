#include "plan/file_plan.h"

#include "support/materialize.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>

#include <string>

namespace ckptring::plan {
namespace {

using test::Bytes;

Bytes text(const std::string& characters) {
  Bytes bytes;
  for (const char c : characters) bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}

/// "abc" payload0(5) "de" 00 00 00 payload1(0) payload2(4) "fghi"
FilePlan small_plan() {
  const std::vector<std::uint16_t> padding{0, 3, 0};
  return FilePlan(text("abcdefghi"), {{3, 5, 1}, {13, 0, 0}, {13, 4, 0}}, {{17, 0}, {17, 2}}, 21,
                  padding);
}

std::string image_of(const FilePlan& plan, std::uint64_t offset, std::uint64_t size) {
  const std::string sources[] = {"WXYZ", "01234"};
  std::string image;
  std::uint64_t next = offset;
  plan.for_each_piece(offset, size, [&](const FilePlan::Piece& piece) {
    EXPECT_EQ(piece.file_offset, next) << "pieces leave no gap";
    EXPECT_GT(piece.size, 0U);
    next += piece.size;
    if (piece.literal != nullptr) {
      image.append(reinterpret_cast<const char*>(piece.literal), piece.size);
    } else {
      image +=
          sources[plan.payloads()[piece.payload].source].substr(piece.payload_offset, piece.size);
    }
  });
  return image;
}

TEST(FilePlan, EveryRangeOfTheFileIsMadeOfItsPieces) {
  const FilePlan plan = small_plan();
  const std::string whole = std::string("abc01234de") + std::string(3, '\0') + "WXYZfghi";
  ASSERT_EQ(whole.size(), plan.total_bytes());
  for (std::uint64_t begin = 0; begin <= whole.size(); ++begin) {
    for (std::uint64_t size = 0; size <= whole.size() - begin; ++size) {
      EXPECT_EQ(image_of(plan, begin, size), whole.substr(begin, size)) << begin << " + " << size;
    }
  }
}

TEST(FilePlan, WithoutPayloadsIsAllLiteral) {
  const FilePlan plan(text("hello"), {}, {}, 5);
  EXPECT_EQ(image_of(plan, 1, 3), "ell");
}

TEST(FilePlan, RefusesPartsThatDoNotFitTogether) {
  const auto refused = [](std::vector<Payload> payloads, std::vector<Fixup> fixups,
                          std::uint64_t total) {
    try {
      FilePlan(text("abcdef"), std::move(payloads), std::move(fixups), total);
    } catch (const Error& error) {
      return error.code() == ErrorCode::internal;
    }
    return false;
  };
  EXPECT_FALSE(refused({{2, 4, 0}}, {{6, 0}}, 10));
  EXPECT_TRUE(refused({{2, 4, 0}}, {}, 11)) << "bytes that nobody has";
  EXPECT_TRUE(refused({{2, 4, 0}}, {{5, 0}}, 10)) << "a fix-up inside its payload";
  EXPECT_TRUE(refused({{2, 4, 0}}, {{7, 0}}, 10)) << "a fix-up that leaves the file";
  EXPECT_TRUE(refused({{2, 4, 0}}, {{6, 1}}, 10)) << "a fix-up of no payload";
  EXPECT_TRUE(refused({{2, 2, 0}, {3, 2, 0}}, {}, 10)) << "payloads that overlap";
  EXPECT_TRUE(refused({{8, 4, 0}}, {}, 10)) << "a payload that leaves the file";
}

}  // namespace
}  // namespace ckptring::plan
