// One line for each row of the fault matrix, so that a table can be filled in from a run's output:
// tests/fault_table.py does.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <string>

namespace ckptring::test {

/// How many expectations of the current test have not held so far. Where each case has at least one
/// of its own, these are the cases that went wrong.
inline std::uint64_t broken_expectations() {
  const ::testing::TestResult& result =
      *::testing::UnitTest::GetInstance()->current_test_info()->result();
  std::uint64_t broken = 0;
  for (int part = 0; part < result.total_part_count(); ++part) {
    if (result.GetTestPartResult(part).failed()) ++broken;
  }
  return broken;
}

struct FaultRow {
  std::string fault;
  std::uint64_t cases = 0;
  std::uint64_t lost = 0;  ///< saves that did not end as promised; what was sound and was refused
  std::uint64_t torn = 0;  ///< looks at a final name that showed neither the old nor the new file;
                           ///< damage that was taken for data

  void print() const {
    std::printf("fault row | %s | cases %ju | lost %ju | torn %ju\n", fault.c_str(),
                static_cast<std::uintmax_t>(cases), static_cast<std::uintmax_t>(lost),
                static_cast<std::uintmax_t>(torn));
    (void)std::fflush(stdout);
  }
  /// Prints the line and fails the test if anything was lost or torn, or nothing was tried.
  void report() const {
    print();
    EXPECT_GT(cases, 0U) << fault;
    EXPECT_EQ(lost, 0U) << fault;
    EXPECT_EQ(torn, 0U) << fault;
  }
};

}  // namespace ckptring::test
