#include "base/checksum.h"

#include <gtest/gtest.h>

#include <random>
#include <span>
#include <string_view>
#include <vector>

namespace ckptring::base {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// The definition, bit by bit.
std::uint32_t by_definition(std::span<const std::byte> bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const std::byte byte : bytes) {
    crc ^= static_cast<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(Checksum, GivesTheKnownAnswers) {
  EXPECT_EQ(crc32({}), 0u);
  EXPECT_EQ(crc32(bytes_of("123456789")), 0xcbf43926u);
  EXPECT_EQ(crc32(bytes_of("a")), 0xe8b7be43u);
  EXPECT_EQ(crc32(bytes_of("The quick brown fox jumps over the lazy dog")), 0x414fa339u);
  EXPECT_EQ(crc32(std::vector<std::byte>(32)), 0x190a55adu);
}

TEST(Checksum, IsTheDefinitionForEveryLengthAndAlignment) {
  std::mt19937_64 random(1);
  const std::vector<std::byte> bytes = random_bytes(random, 700);
  for (std::size_t begin : {0, 1, 3, 8, 13}) {
    for (std::size_t size = 0; size < 300; ++size) {
      const auto part = std::span(bytes).subspan(begin, size);
      ASSERT_EQ(crc32(part), by_definition(part)) << begin << " + " << size;
    }
  }
}

TEST(Checksum, GoesOnFromASeed) {
  EXPECT_EQ(crc32(bytes_of("56789"), crc32(bytes_of("1234"))), 0xcbf43926u);
  EXPECT_EQ(crc32({}, 0x12345678), 0x12345678u);
}

TEST(Checksum, JoinsPiecesOfAnySize) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 200; ++round) {
    const std::vector<std::byte> bytes = random_bytes(random, random() % 5000);
    const std::size_t cut = bytes.empty() ? 0 : random() % (bytes.size() + 1);
    const auto first = std::span(bytes).first(cut);
    const auto second = std::span(bytes).subspan(cut);
    ASSERT_EQ(crc32_combine(crc32(first), crc32(second), second.size()), crc32(bytes));
  }
}

TEST(Checksum, JoinsAPieceThatIsLongerThanFourGigabytes) {
  // Zeros appended to a message: the same as joining smaller runs of zeros one by one.
  const std::uint32_t start = crc32(bytes_of("x"));
  const std::vector<std::byte> mebibyte(1 << 20);
  std::uint32_t zeros = crc32(mebibyte);
  std::uint64_t length = mebibyte.size();
  while (length < 1ull << 34) {
    zeros = crc32_combine(zeros, zeros, length);
    length *= 2;
  }
  std::uint32_t expected = start;
  std::uint32_t quarter = crc32(mebibyte);
  for (std::uint64_t doubled = mebibyte.size(); doubled < 1ull << 32; doubled *= 2) {
    quarter = crc32_combine(quarter, quarter, doubled);
  }
  for (int i = 0; i < 4; ++i) expected = crc32_combine(expected, quarter, 1ull << 32);
  EXPECT_EQ(crc32_combine(start, zeros, length), expected);
}

}  // namespace
}  // namespace ckptring::base
