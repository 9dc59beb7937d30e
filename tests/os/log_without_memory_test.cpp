// Memory runs out in a thread that logs, at each of its allocations: no line is lost for that.
#include "os/log_handler.h"

#include "base/log.h"
#include "support/failing_allocations.h"
#include "support/forked.h"

#include <ckptring/log.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>

namespace ckptring::os {
namespace {

std::size_t count_of(const std::string& part, const std::string& text) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

/// The second one has the thread that the first one had made, if it was.
void log_two_lines() {
  for (const char* line : {"the first of them", "the second one"}) {
    base::LogContext{0, 1}.error("{}", line);
  }
}

TEST(LogWithoutMemory, EachLineGetsToTheHandlerOrToStderr) {
  constexpr int kMet = 7;
  int status = kMet;
  std::size_t nth = 0;
  for (; status == kMet; ++nth) {
    SCOPED_TRACE(nth);
    ::testing::internal::CaptureStderr();
    status = test::exit_status_of_fork([nth] {
      set_log_handler(base::print_log_line);
      bool met = false;
      std::thread([&] {
        if (::pthread_setname_np(::pthread_self(), "test-logs") != 0) return;
        const test::FailingAllocation shortage("test-logs", nth);
        log_two_lines();
        met = shortage.failed();
      }).join();
      set_log_handler({});
      return met ? kMet : 0;
    });
    const std::string printed = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(count_of("ckptring error [rank 0] [save 1] the first of them\n", printed), 1u);
    EXPECT_EQ(count_of("ckptring error [rank 0] [save 1] the second one\n", printed), 1u);
    EXPECT_EQ(count_of("\n", printed), 2u) << printed;
  }
  EXPECT_EQ(status, 0);
  EXPECT_GE(nth, 4U) << "two texts and a thread at least";
}

}  // namespace
}  // namespace ckptring::os
