// Every function of CUDA's table failing in turn: by which roads copies are sent past them, and
// whether each of them was met.
#pragma once

#include "support/fake_cuda.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <string>

namespace ckptring::test {

enum class Road {
  direct,       ///< memory can be registered
  window,       ///< it cannot, and copies go through a window
  failed_wait,  ///< the first wait for an event fails, and the stream is waited for
};
inline constexpr std::array kRoads{Road::direct, Road::window, Road::failed_wait};

/// Lets the nth call fail as cudaErrorUnknown, after what belongs to the road but `window`, which
/// is the test's to arrange.
inline void fail_on(Road road, FakeCuda& cuda, Call call, unsigned nth) {
  if (road == Road::failed_wait) cuda.fail(Call::event_synchronize, 1, cudaErrorUnknown);
  cuda.fail(call, nth, cudaErrorUnknown);
}
/// Whether what belongs to the road would still fail.
inline bool fails_yet(Road road, const FakeCuda& cuda) {
  return road == Road::failed_wait && cuda.counters().of(Call::event_synchronize) == 0;
}

/// CUDA's words for cudaErrorUnknown; where one of those calls has failed, maybe unknown ones.
inline auto has_words_of_unknown(Call failed) {
  const bool unknown = failed == Call::get_error_name || failed == Call::get_error_string;
  return testing::ContainsRegex(unknown ? "(cudaErrorUnknown|unrecognized error code): "
                                          "(unknown error|unrecognized error code)"
                                        : "cudaErrorUnknown: unknown error");
}

/// The functions that have failed.
class FailedCalls {
 public:
  void add(Call call) { failed_[static_cast<std::size_t>(call)] = true; }
  void expect_all_but(std::initializer_list<Call> others) const {
    for (std::size_t i = 0; i < kCalls; ++i) {
      const auto call = static_cast<Call>(i);
      const bool wanted = std::find(others.begin(), others.end(), call) == others.end();
      EXPECT_EQ(failed_[i], wanted) << name(call);
    }
  }

 private:
  std::array<bool, kCalls> failed_{};
};

}  // namespace ckptring::test
