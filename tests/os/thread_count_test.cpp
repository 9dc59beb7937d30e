#include "os/thread_count.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>

namespace ckptring::os {
namespace {

TEST(ThreadCount, IsWhatWasAskedFor) {
  EXPECT_EQ(thread_count("threads", 1, 2), 1u);
  EXPECT_EQ(thread_count("threads", 256, 2), 256u);
}

TEST(ThreadCount, IsByDefaultAShareOfTheCoresFromOneToEight) {
  const unsigned cores = std::thread::hardware_concurrency();
  EXPECT_EQ(thread_count("threads", 0, 1), std::clamp(cores, 1u, 8u));
  EXPECT_EQ(thread_count("threads", 0, 2), std::clamp(cores / 2, 1u, 8u));
  EXPECT_EQ(thread_count("threads", 0, 100'000), 1u);
}

TEST(ThreadCount, NamesASettingThatIsTooLarge) {
  try {
    (void)thread_count("copy_threads", 257, 1);
    FAIL() << "it was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("copy_threads must be at most 256, and is 257"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace ckptring::os
