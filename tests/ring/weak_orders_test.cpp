// Each release and each acquire of the ring is needed, and is watched over: the same code without
// it is caught by the thread sanitizer. Built only with that sanitizer.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace ckptring::ring::test {
namespace {

struct Finished {
  int exit_status;
  std::string output;
};

Finished stress_with(const std::string& orders) {
  const std::string command = std::string("TSAN_OPTIONS='halt_on_error=1 exitcode=66' ") +
                              CKPTRING_WEAK_ORDERS_STRESS + " " + orders + " 2>&1";
  Finished run{};
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return {-1, "cannot be started"};
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) run.output += part.data();
  const int status = ::pclose(pipe);
  run.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return run;
}

TEST(Orders, OfProductionLeaveNoRace) {
  const Finished run = stress_with("production");
  EXPECT_EQ(run.exit_status, 0) << run.output;
}

class WeakOrders : public ::testing::TestWithParam<const char*> {};

TEST_P(WeakOrders, AreCaughtByTheThreadSanitizer) {
  const Finished run = stress_with(GetParam());
  EXPECT_EQ(run.exit_status, 66) << run.output;
  EXPECT_NE(run.output.find("data race"), std::string::npos) << run.output;
}

INSTANTIATE_TEST_SUITE_P(OfEachEdge, WeakOrders,
                         ::testing::Values("publish_store", "publish_load", "release_store",
                                           "release_load", "intent_store", "intent_load",
                                           "outcome_store", "outcome_load", "finish_store",
                                           "finish_load"),
                         [](const auto& edge) { return std::string(edge.param); });

}  // namespace
}  // namespace ckptring::ring::test
