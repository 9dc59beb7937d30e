#include "support/time_left.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

namespace bench {
namespace {

using testing::DoubleEq;
using testing::Optional;

TEST(TimeLeftTest, NothingIsSaidBeforeTheFirstTurn) {
  EXPECT_EQ(TimeLeft(2, 5).seconds(), std::nullopt);
}

TEST(TimeLeftTest, EverybodysTurnsTakeWhatTheirOwnTookSoFar) {
  TimeLeft left(2, 3);
  left.add_turn(0, 1);
  left.add_turn(1, 10);
  EXPECT_THAT(left.seconds(), Optional(DoubleEq(2 * 1 + 2 * 10)));
  left.add_turn(1, 20);
  EXPECT_THAT(left.seconds(), Optional(DoubleEq(2 * 1 + 1 * 15)));
}

TEST(TimeLeftTest, WhoHadNoTurnYetIsLikeTheOthersInTheMean) {
  TimeLeft left(3, 2);
  left.add_turn(0, 1);
  left.add_turn(1, 3);
  EXPECT_THAT(left.seconds(), Optional(DoubleEq(1 + 3 + 2 * 2)));
}

TEST(TimeLeftTest, WhoIsLeftOutTakesNoTime) {
  TimeLeft left(2, 5);
  left.add_turn(0, 1);
  left.leave_out(1);
  EXPECT_THAT(left.seconds(), Optional(DoubleEq(4)));
}

TEST(TimeLeftTest, ItIsSaidInTheUnitThatFits) {
  EXPECT_EQ(time_in_words(7.4), "7 s");
  EXPECT_EQ(time_in_words(720), "12 min");
  EXPECT_EQ(time_in_words(2.5 * 3600), "2.5 h");
}

}  // namespace
}  // namespace bench
