// What a handler of the log may do, and what it cannot do to anybody.
#include <ckptring/log.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "contract/contract.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

/// A handler that acts where it hears of a failure that nobody has fetched: that is logged in the
/// middle of the next `save`, or of `close`.
class Logging : public Contract {
 public:
  ~Logging() override {
    set_log_handler({});
    set_log_level(before_);
  }

 protected:
  Logging() { set_log_level(LogLevel::warn); }

  void fail_unheard() { checkpointer->save(kUnwritable, placed(sample_state())).written.wait(); }
  static void act_when_it_is_told(std::function<void()> act) {
    set_log_handler([act = std::move(act)](LogLevel, std::string_view line) {
      if (line.find("nobody asked for its result") != std::string_view::npos) act();
    });
  }

 private:
  LogLevel before_ = log_level();
};

CKPTRING_ALL_PATHS(Logging);

TEST_P(Logging, MaySaveAndWaitForItAndForThoseWhoSave) {
  fail_unheard();
  std::atomic<bool> done = false;
  act_when_it_is_told([&] {
    (void)save("in the handler", sample_state());
    std::thread([&] { (void)save("in a thread of it", sample_state()); }).join();
    done = true;
  });
  (void)save("first", sample_state());
  set_log_handler({});
  EXPECT_TRUE(done);
  for (const char* const name : {"first", "in the handler", "in a thread of it"}) {
    expect_equal(sample_state(), checkpointer->load(directory / name).state, "state");
  }
}

TEST_P(Logging, MayClose) {
  fail_unheard();
  act_when_it_is_told([&] { checkpointer->close(); });
  const SaveHandle first = checkpointer->save(directory / "first", placed(sample_state()));
  set_log_handler({});
  EXPECT_TRUE(first.written.ready());
  EXPECT_NO_THROW(first.written.get());
  EXPECT_EQ(error_of([&] { checkpointer->save("x", sample_state()); }).code(), ErrorCode::closed);
}

TEST_P(Logging, HasBeenCalledForWhatWasLoggedWhenCloseReturns) {
  fail_unheard();
  std::atomic<bool> told = false;
  act_when_it_is_told([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    told = true;
  });
  checkpointer->close();
  EXPECT_TRUE(told);
}

TEST_P(Logging, ThatHangsHoldsUpNoSaveAndCloseForASecondOnly) {
  fail_unheard();
  std::atomic<bool> ended = false;
  act_when_it_is_told([&] { ended.wait(false); });
  for (const char* const name : {"first", "second"}) (void)save(name, sample_state());
  fail_unheard();
  const auto began = std::chrono::steady_clock::now();
  checkpointer->close();
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::seconds(1));
  ended = true;
  ended.notify_all();
  set_log_handler({});
}

}  // namespace
}  // namespace ckptring::test
