#include "os/affinity.h"

#include "os/own_thread.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace ckptring::os {
namespace {

const Processors all = Processors::of_this_thread();

std::vector<unsigned> numbers_of(const Processors& processors) {
  std::vector<unsigned> numbers;
  for (unsigned processor = 0; processor < Processors::kMost; ++processor) {
    if (processors.has(processor)) numbers.push_back(processor);
  }
  return numbers;
}

Processors only(const std::vector<unsigned>& numbers) {
  Processors some;
  for (const unsigned number : numbers) some.add(number);
  return some;
}

Processors of_own_thread_made_on(const Processors& makers) {
  Processors found;
  std::thread([&] {
    makers.use();
    EXPECT_EQ(Processors::of_this_thread(), makers);
    OwnThread("ckptring-test", OwnThread::Priority::foreground, [&] {
      found = Processors::of_this_thread();
    }).join();
  }).join();
  return found;
}

/// What the witness says, started with this setting and on these processors.
std::string told_by_witness(const std::string& before, const std::string& arguments = "") {
  const std::string command = before + " " CKPTRING_AFFINITY_WITNESS " " + arguments;
  FILE* const output = ::popen(command.c_str(), "r");
  if (output == nullptr) throw std::runtime_error("popen");
  std::array<char, 4096> text{};
  const std::size_t size = std::fread(text.data(), 1, text.size(), output);
  EXPECT_EQ(::pclose(output), 0) << command;
  return {text.data(), size};
}

std::string words(const std::vector<unsigned>& numbers) {
  std::ostringstream text;
  for (const unsigned number : numbers) text << number << " ";
  return text.str();
}

class Affinity : public ::testing::Test {
 protected:
  void SetUp() override {
    if (numbers_.size() < 2) GTEST_SKIP() << "there is one processor";
  }
  const std::vector<unsigned> numbers_ = numbers_of(all);
  const std::string first_ = std::to_string(numbers_.front());
};

TEST_F(Affinity, OfAThreadWhoseMakerIsPinnedToOneCoreIsThatOfTheProcessWhenItBegan) {
  EXPECT_EQ(of_own_thread_made_on(only({numbers_.front()})), all);
  EXPECT_EQ(told_by_witness("", first_), words(numbers_) + "of " + first_ + " ");
}

TEST_F(Affinity, OfAThreadIsItsMakersWhereThatHasSeveralCores) {
  EXPECT_EQ(of_own_thread_made_on(all), all);
  if (numbers_.size() < 4) GTEST_SKIP() << "there are too few processors for more";
  std::vector<unsigned> half(numbers_.begin(), numbers_.begin() + std::ssize(numbers_) / 2);
  half.push_back(numbers_.back());
  EXPECT_EQ(of_own_thread_made_on(only(half)), only(half));
}

TEST_F(Affinity, OfAThreadIsNeverMoreThanTheLauncherGaveTheProcess) {
  EXPECT_EQ(told_by_witness("taskset -c " + first_), first_ + " of " + first_ + " ");
  EXPECT_EQ(told_by_witness("OMP_PROC_BIND=true taskset -c " + first_),
            first_ + " of " + first_ + " ");
}

TEST_F(Affinity, OfAThreadIsWhatOpenMPFoundWhereItPinnedTheFirstThreadBeforeMain) {
  const std::string told = told_by_witness("OMP_PROC_BIND=true");
  if (told == words(numbers_) + "of " + words(numbers_)) {
    GTEST_SKIP() << "this OpenMP pins nothing before main";
  }
  EXPECT_EQ(told, words(numbers_) + "of " + first_ + " ");
}

}  // namespace
}  // namespace ckptring::os
