#include "save/earlier_failures.h"

#include "base/log.h"

#include <new>
#include <utility>

namespace ckptring::save {
namespace {

/// Failures that are kept for take_untold, which may never be called.
constexpr std::size_t kMostUntold = 1000;

}  // namespace

/// Where there is no memory for that, the save's futures still tell of the failure.
void EarlierFailures::add(std::uint64_t number, const std::string& path,
                          const Future<SaveReport>& written) noexcept {
  try {
    const std::scoped_lock lock(mutex_);
    untold_.push_back({number, path, written});
    if (untold_.size() > kMostUntold) untold_.pop_front();
    unfetched_.push_back({number, path, written});
  } catch (const std::bad_alloc&) {  // NOLINT(bugprone-empty-catch): see above
  }
}

std::exception_ptr EarlierFailures::take_unfetched() {
  std::vector<Failed> earlier;
  {
    const std::scoped_lock lock(mutex_);
    earlier = std::exchange(unfetched_, {});
  }
  std::exception_ptr newest;
  for (const Failed& failed : earlier) {
    if (failed.written.fetched()) continue;
    newest = failed.written.error();
    try {
      std::rethrow_exception(newest);
    } catch (const std::exception& error) {
      base::LogContext{rank_, failed.number}.error(
          "an earlier save failed, and nobody asked for its result: {}", error.what());
    }
  }
  return newest;
}

std::vector<UnwrittenSave> EarlierFailures::take_untold() {
  std::deque<Failed> failed;
  {
    const std::scoped_lock lock(mutex_);
    failed = std::exchange(untold_, {});
  }
  std::vector<UnwrittenSave> told;
  told.reserve(failed.size());
  for (const Failed& save : failed) told.push_back({save.path, save.written.error()});
  return told;
}

}  // namespace ckptring::save
