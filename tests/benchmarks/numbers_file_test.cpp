#include "support/numbers_file.h"

#include "support/temporary_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>
#include <string>
#include <system_error>

namespace bench {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

nlohmann::json notes_in(const std::string& path) {
  return nlohmann::json::parse(text_of(path)).at("notes");
}

Report report_with(const std::string& note) {
  Report report("demo", {{"rounds", 2}});
  report.note(note);
  return report;
}

class NumbersFileTest : public testing::Test {
 protected:
  const ckptring::test::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "demo.json";
};

TEST_F(NumbersFileTest, NothingIsWrittenWithoutAFile) {
  const Report report = report_with("");
  NumbersFile numbers("");
  numbers.after_round(report, [](Report&) { FAIL() << "who is it for?"; })("demo, 1 of 2 rounds");
  numbers.write(report);
  EXPECT_THAT(numbers.so_far(), IsEmpty());
}

TEST_F(NumbersFileTest, AfterEachRoundTheFileHasWhatIsThereAndThatItIsUnfinished) {
  const Report report = report_with("of an earlier part");
  NumbersFile numbers(path_);
  int rounds = 0;
  const AfterRound after_round = numbers.after_round(
      report, [&](Report& to) { to.note(std::to_string(rounds) + " samples"); });
  EXPECT_FALSE(std::filesystem::exists(path_));
  rounds = 1;
  after_round("demo, 1 of 2 rounds");
  EXPECT_THAT(notes_in(path_),
              ElementsAre("of an earlier part", "1 samples", "unfinished: demo, 1 of 2 rounds"));
  EXPECT_EQ(numbers.so_far(), "demo, 1 of 2 rounds");
  rounds = 2;
  after_round("demo, 2 of 2 rounds");
  EXPECT_THAT(notes_in(path_),
              ElementsAre("of an earlier part", "2 samples", "unfinished: demo, 2 of 2 rounds"));
  numbers.write(report);
  EXPECT_THAT(notes_in(path_), ElementsAre("of an earlier part"));
  EXPECT_THAT(numbers.so_far(), IsEmpty());
}

TEST_F(NumbersFileTest, WhoHasTheFileOpenStillReadsTheWholeOfBefore) {
  NumbersFile(path_).write(report_with("before"));
  const std::string before = text_of(path_);
  std::ifstream open(path_);
  NumbersFile(path_).write(report_with("a longer note than the one before"));
  std::ostringstream read;
  read << open.rdbuf();
  EXPECT_EQ(read.str(), before);
  EXPECT_THAT(notes_in(path_), ElementsAre("a longer note than the one before"));
}

TEST_F(NumbersFileTest, NothingIsLeftBesideIt) {
  NumbersFile(path_).write(report_with(""));
  int files = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(directory_.path())) {
    ++files;
  }
  EXPECT_EQ(files, 1);
}

TEST_F(NumbersFileTest, WhatALinkPointsToIsReplacedAndTheLinkStays) {
  const std::string link = directory_ / "link.json";
  NumbersFile(path_).write(report_with("before"));
  std::filesystem::create_symlink(path_, link);
  NumbersFile(link).write(report_with("after"));
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_THAT(notes_in(path_), ElementsAre("after"));
}

TEST_F(NumbersFileTest, APipeIsWrittenToOnceAndStays) {
  const std::string pipe = directory_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  auto read = std::async(std::launch::async, [&] { return text_of(pipe); });
  const Report report = report_with("all");
  NumbersFile numbers(pipe);
  numbers.after_round(report, [](Report&) {})("demo, 1 of 2 rounds");
  numbers.write(report);
  EXPECT_THAT(nlohmann::json::parse(read.get()).at("notes"), ElementsAre("all"));
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

TEST_F(NumbersFileTest, ADirectoryThatIsNotThereIsSaidBeforeAnythingIsMeasured) {
  const auto make = [&] { NumbersFile(directory_ / "nowhere/demo.json"); };
  try {
    make();
    FAIL() << "nothing was thrown";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), ENOENT);
  }
}

}  // namespace
}  // namespace bench
