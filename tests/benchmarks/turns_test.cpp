#include "support/turns.h"

#include "support/contestant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

using testing::ElementsAre;

using Order = std::vector<std::string>;

/// Who had a turn in each round. `fails`: who fails in round `fails_in`.
std::vector<Order> orders(const std::vector<std::string>& labels, int rounds,
                          std::vector<std::string>& notes, const std::string& fails = "",
                          int fails_in = 0) {
  std::vector<Order> found(static_cast<std::size_t>(rounds));
  std::vector<Turn> turns;
  turns.reserve(labels.size());
  for (const std::string& label : labels) {
    turns.push_back({label, [&, label](int round) {
                       found.at(static_cast<std::size_t>(round)).push_back(label);
                       if (label == fails && round == fails_in) throw ContestantFailed("no disk");
                     }});
  }
  testing::internal::CaptureStderr();  // signs of life
  take_turns("part", turns, rounds, notes, [](const std::string&) {});
  (void)testing::internal::GetCapturedStderr();
  return found;
}

class TurnsTest : public testing::Test {
 protected:
  const std::vector<std::string> labels_{"a", "b", "c", "d", "e", "f"};
  std::vector<std::string> notes_;
};

TEST_F(TurnsTest, EverybodyHasOneTurnInEachRoundInAnotherOrder) {
  const std::vector<Order> found = orders(labels_, 4, notes_);
  for (Order order : found) {
    std::ranges::sort(order);
    EXPECT_EQ(order, labels_);
  }
  EXPECT_NE(found[0], found[1]);
  EXPECT_NE(found[1], found[2]);
  EXPECT_NE(found[2], found[3]);
  EXPECT_TRUE(notes_.empty());
}

TEST_F(TurnsTest, EveryRunHasTheSameOrders) {
  EXPECT_EQ(orders(labels_, 4, notes_), orders(labels_, 4, notes_));
}

TEST_F(TurnsTest, WhoFailedIsLeftOutAndNobodyElseMoves) {
  std::vector<Order> whole = orders(labels_, 4, notes_);
  const std::vector<Order> found = orders(labels_, 4, notes_, "c", 1);
  EXPECT_EQ(found[0], whole[0]);
  EXPECT_EQ(found[1], whole[1]);
  for (const std::size_t round : {2u, 3u}) {
    std::erase(whole[round], "c");
    EXPECT_EQ(found[round], whole[round]);
  }
  EXPECT_THAT(notes_, ElementsAre("part: c failed in round 2: no disk"));
}

TEST_F(TurnsTest, ALineBeforeEachTurnSaysWhichOneItIs) {
  testing::internal::CaptureStderr();
  take_turns("part", {{"a", [](int) {}}}, 2, notes_, [](const std::string&) {});
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "part, round 1/2, turn 1/1: a\n"
            "part, round 2/2, turn 1/1, about 0 s left: a\n");
}

TEST_F(TurnsTest, AfterEachRoundItIsSaidWhatIsDone) {
  std::vector<std::string> seen;
  const auto see = [&](const std::string& what) { seen.push_back(what); };
  testing::internal::CaptureStderr();
  take_turns("part", {{"a", [&](int) { see("a"); }}}, 2, notes_, see);
  (void)testing::internal::GetCapturedStderr();
  EXPECT_THAT(seen, ElementsAre("a", "part, 1 of 2 rounds", "a", "part, 2 of 2 rounds"));
}

}  // namespace
}  // namespace bench
