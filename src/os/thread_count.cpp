#include "os/thread_count.h"

#include "os/affinity.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace ckptring::os {
namespace {

constexpr unsigned kMost = 256;
constexpr unsigned kMostByDefault = 8;

}  // namespace

unsigned thread_count(const char* setting, unsigned asked, unsigned cores_each) {
  if (asked > kMost) {
    throw Error(ErrorCode::invalid_argument, "configure threads", "",
                fmt::format("{} must be at most {}, and is {}", setting, kMost, asked));
  }
  if (asked != 0) return asked;
  const unsigned given = Processors::for_own_thread().count();  // 0: the system does not say
  const unsigned cores = given != 0 ? given : std::thread::hardware_concurrency();
  return std::clamp(cores / cores_each, 1u, kMostByDefault);
}

}  // namespace ckptring::os
