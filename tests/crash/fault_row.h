// One line for each row of the fault matrix, so that a table can be filled in from a run's output.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace ckptring::test {

struct FaultRow {
  std::string fault;
  int cases = 0;
  int lost = 0;  ///< saves that did not end as promised
  int torn = 0;  ///< looks at a final name that showed neither the old nor the new file

  /// Prints the line and fails the test if anything was lost or torn.
  void report() const {
    std::printf("fault row | %s | cases %d | lost %d | torn %d\n", fault.c_str(), cases, lost,
                torn);
    ::testing::Test::RecordProperty("cases", cases);
    ::testing::Test::RecordProperty("lost", lost);
    ::testing::Test::RecordProperty("torn", torn);
    EXPECT_GT(cases, 0);
    EXPECT_EQ(lost, 0);
    EXPECT_EQ(torn, 0);
  }
};

}  // namespace ckptring::test
