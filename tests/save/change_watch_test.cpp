#include "save/change_watch.h"

#include <ckptring/error.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

namespace ckptring::save {
namespace {

using testing::ElementsAre;

/// A job on the host and two devices, whose places change as a test says.
class ChangeWatchTest : public testing::Test {
 protected:
  ChangeWatchTest() {
    job_.devices = {{0, nullptr, nullptr}, {1, nullptr, nullptr}};
    job_.check_unchanged = [this](int place, const Captured&) {
      looked_at_.push_back(place);
      if (changed_.contains(place)) {
        throw Error(ErrorCode::changed_while_staging, "stage key k for", "/run", "it was modified");
      }
    };
  }
  ErrorCode sealed() {
    try {
      watch_.before_sealing();
      return ErrorCode::ok;
    } catch (const Error& error) {
      return error.code();
    }
  }

  SaveJob job_{.path = "/run", .plan = plan::FilePlan({}, {}, {}, 0), .sources = {}};
  ChangeWatch watch_{job_};
  std::set<int> changed_;
  std::vector<int> looked_at_;
};

TEST_F(ChangeWatchTest, LooksAtEveryPlaceBeforeSealing) {
  EXPECT_EQ(sealed(), ErrorCode::ok);
  EXPECT_THAT(looked_at_, ElementsAre(stage::kHost, 0, 1));
  for (const int place : {stage::kHost, 0, 1}) {
    changed_ = {place};
    EXPECT_EQ(sealed(), ErrorCode::changed_while_staging) << place;
  }
}

TEST_F(ChangeWatchTest, LooksAtADeviceForTheLastTimeWhenItIsFencedFirst) {
  watch_.at_fence(1);
  changed_ = {1};
  watch_.at_fence(1);
  EXPECT_EQ(sealed(), ErrorCode::ok);
  EXPECT_THAT(looked_at_, ElementsAre(1, stage::kHost, 0));
}

TEST_F(ChangeWatchTest, FailsTheSaveForWhatItFoundAtAFence) {
  changed_ = {0};
  watch_.at_fence(0);
  changed_ = {};
  EXPECT_EQ(sealed(), ErrorCode::changed_while_staging);
}

TEST_F(ChangeWatchTest, LooksAtNothingOnceTheTensorsAreLetGo) {
  watch_.end();
  watch_.at_fence(0);
  EXPECT_EQ(sealed(), ErrorCode::ok);
  EXPECT_TRUE(looked_at_.empty());
}

TEST(ChangeWatch, AFenceThatReturnsIsFollowedByChangesThatNobodyTakesForEarlierOnes) {
  for (int round = 0; round < 300; ++round) {
    int version = 0;  // no atomic: the thread sanitizer sees who looks too late
    SaveJob job{.path = "/run", .plan = plan::FilePlan({}, {}, {}, 0), .sources = {}};
    job.devices = {{0, nullptr, nullptr}};
    job.check_unchanged = [&](int place, const Captured&) {
      if (place == 0 && version != 0) throw Error(ErrorCode::changed_while_staging, "", "", "");
    };
    ChangeWatch watch(job);
    std::thread staging([&] {
      EXPECT_NO_THROW(watch.before_sealing());
      watch.end();
    });
    watch.at_fence(0);
    version = 1;
    staging.join();
  }
}

}  // namespace
}  // namespace ckptring::save
