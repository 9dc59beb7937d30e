// What a checkpoint holds, read without a tensor library.
#include "core/plain_state.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

#include <ckptring/archive.h>
#include <ckptring/saver.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace ckptring::test {
namespace {

using testing::HasSubstr;

std::vector<std::int32_t> read_ints(const Archive& archive, const std::string& key, bool verify) {
  const ArchivedTensor& tensor = archive.get<ArchivedTensor>(key);
  std::vector<std::int32_t> read(tensor.elements(), -1);
  archive.read(tensor, std::as_writable_bytes(std::span(read)), verify);
  return read;
}

class ArchiveTest : public testing::Test {
 protected:
  ArchiveTest() {
    Saver::synchronous({}, RankInfo{})->save(directory_ / "run", state_).written.get();
  }
  const TemporaryDirectory directory_;
  const PlainState state_{300, 500};
  const std::string file_ = directory_ / "run/checkpoint_0.pt";
};

TEST_F(ArchiveTest, ListsEveryValueInItsOrder) {
  const Archive archive = Archive::open(directory_ / "run");
  std::vector<std::string> keys;
  for (const ArchiveEntry& entry : archive.entries()) keys.push_back(entry.key);
  EXPECT_THAT(keys, testing::ElementsAre("model.weight", "model.turned", "list[0]", "list[1]",
                                         "list[2][0]", "names.7", "step"));
  EXPECT_TRUE(std::holds_alternative<std::monostate>(archive.find("list[0]")->value));
  EXPECT_EQ(archive.get<bool>("list[1]"), true);
  EXPECT_EQ(archive.get<double>("list[2][0]"), 0.5);
  EXPECT_EQ(archive.get<std::string>("names.7"), "seven");
  EXPECT_EQ(archive.get<std::int64_t>("step"), 12);
  const ArchivedTensor& tensor = archive.get<ArchivedTensor>("model.turned");
  EXPECT_EQ(tensor.dtype, DType::int32);
  EXPECT_THAT(tensor.sizes, testing::ElementsAre(500, 300));
  EXPECT_THAT(tensor.strides, testing::ElementsAre(1, 500));
  EXPECT_EQ(tensor.location, "cpu");
  EXPECT_EQ(tensor.bytes(), 600'000u);
  EXPECT_EQ(tensor.storage, archive.get<ArchivedTensor>("model.weight").storage);
  EXPECT_EQ(archive.find("model"), nullptr);
}

TEST_F(ArchiveTest, ReadsElementsInTheOrderOfTheSizesWhateverTheStrides) {
  const Archive archive = Archive::open(file_);
  std::vector<std::int32_t> turned;
  for (std::size_t column = 0; column < 500; ++column) {
    for (std::size_t row = 0; row < 300; ++row) turned.push_back(state_.matrix[row * 500 + column]);
  }
  for (const bool verify : {true, false}) {
    EXPECT_EQ(read_ints(archive, "model.weight", verify), state_.matrix);
    EXPECT_EQ(read_ints(archive, "model.turned", verify), turned);
  }
}

TEST_F(ArchiveTest, WhatIsAskedForInVainIsNamed) {
  const Archive archive = Archive::open(file_);
  const Error missing = error_of([&] { (void)archive.get<bool>("model.bias"); });
  EXPECT_EQ(missing.code(), ErrorCode::missing_key);
  EXPECT_EQ(missing.what(), "get key model.bias of " + file_ + ": the file does not have it");
  const Error other = error_of([&] { (void)archive.get<bool>("step"); });
  EXPECT_EQ(other.code(), ErrorCode::mismatch);
  EXPECT_EQ(other.what(), "get key step of " + file_ + ": the file has an int there");
}

TEST_F(ArchiveTest, RefusesMemoryOfAnotherSizeAndTensorsOfAnotherFile) {
  const Archive archive = Archive::open(file_);
  ArchivedTensor tensor = archive.get<ArchivedTensor>("model.weight");
  std::vector<std::byte> memory(600'001);
  const auto code = [&](std::size_t bytes) {
    return error_of([&] { archive.read(tensor, std::span(memory).first(bytes)); }).code();
  };
  EXPECT_EQ(code(599'999), ErrorCode::invalid_argument);
  EXPECT_EQ(code(600'001), ErrorCode::invalid_argument);
  EXPECT_NO_THROW(archive.read(tensor, std::span(memory).first(600'000)));
  tensor.offset = 1;
  EXPECT_EQ(code(600'000), ErrorCode::invalid_argument);
  tensor.offset = 0;
  tensor.storage = 1000;
  EXPECT_EQ(code(600'000), ErrorCode::invalid_argument);
}

TEST_F(ArchiveTest, AFlippedBitIsFoundUnlessNobodyLooks) {
  {
    std::fstream file(file_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(0, std::ios::end);
    const auto middle = file.tellg() / 2;
    file.seekg(middle);
    const auto byte = static_cast<char>(file.get() ^ 4);
    file.seekp(middle);
    file.put(byte);
  }
  const Archive archive = Archive::open(file_);
  for (const char* const key : {"model.weight", "model.turned"}) {
    const Error error = error_of([&] { (void)read_ints(archive, key, true); });
    EXPECT_EQ(error.code(), ErrorCode::damaged) << key;
    EXPECT_THAT(error.what(), HasSubstr(file_));
    EXPECT_THAT(error.what(), HasSubstr("CRC-32"));
    EXPECT_NO_THROW((void)read_ints(archive, key, false));
  }
}

TEST_F(ArchiveTest, AFileThatIsNotThereOrNoCheckpointIsNamed) {
  EXPECT_EQ(error_of([&] { (void)Archive::open(directory_ / "none"); }).code(),
            ErrorCode::not_found);
  std::ofstream(directory_ / "text") << "no checkpoint at all";
  const Error error = error_of([&] { (void)Archive::open(directory_ / "text"); });
  EXPECT_THAT(error.what(), HasSubstr(directory_ / "text"));
  EXPECT_EQ(error_of([&] {
              (void)Archive::open(file_, {3, 2});
            }).code(),
            ErrorCode::invalid_argument);
}

TEST_F(ArchiveTest, LongKeysThatTheFileHasEachTimeAreListed) {
  const std::string path = directory_ / "long";
  const std::string once(200'000, 's');
  Saver::synchronous({}, RankInfo{})
      ->save(path,
             [&](StateRecorder& state) {
               state.begin_dict();
               for (std::int64_t i = 0; i < 60; ++i) {
                 state.key(i);
                 state.begin_dict();
                 state.key(once);  // written each time, as it is long
                 state.integer(i);
                 state.end_dict();
               }
               state.end_dict();
             })
      .written.get();
  EXPECT_EQ(Archive::open(path).entries().size(), 60u) << "in proportion to the file";
}

TEST_F(ArchiveTest, LongKeysAboveManyValuesTakeNoMemoryWithoutBound) {
  const std::string path = directory_ / "long";
  Saver::synchronous({}, RankInfo{})
      ->save(path,
             [](StateRecorder& state) {
               state.begin_dict();
               state.key(std::string(1 << 16, 'k'));
               state.begin_list();
               for (int i = 0; i < 100'000; ++i) state.none();
               state.end_list();
               state.end_dict();
             })
      .written.get();
  const Error error = error_of([&] { (void)Archive::open(path); });
  EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
  EXPECT_THAT(error.what(), HasSubstr("long keys"));
}

}  // namespace
}  // namespace ckptring::test
