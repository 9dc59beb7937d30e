#include "save/saved_files.h"

#include "store/file_at.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

namespace ckptring::save {
namespace {

constexpr std::size_t kMost = 16;

struct Name {
  std::string path;
  unsigned under_way = 0;   ///< saves
  os::FileIdentity file{};  ///< the last one that is known; none
};

/// The names that this process has saved to.
class SavedNames {
 public:
  const pid_t owner = ::getpid();

  void begin(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    const auto known = find(path);
    if (known != newest_last_.end()) {
      newest_last_.splice(newest_last_.end(), newest_last_, known);
    } else {
      newest_last_.push_back({path});
      drop_oldest();
    }
    newest_last_.back().file = {};
    ++newest_last_.back().under_way;
  }

  void end(const std::string& path, const os::FileIdentity& file) noexcept {
    const std::scoped_lock lock(mutex_);
    const auto known = find(path);
    if (known == newest_last_.end()) return;
    known->file = file;
    if (known->under_way > 0) --known->under_way;
  }

  /// Those of which it is known what should be there.
  std::vector<Name> known() {
    const std::scoped_lock lock(mutex_);
    std::vector<Name> names;
    std::ranges::copy_if(newest_last_, std::back_inserter(names), is_known);
    return names;
  }

  /// Unless something has happened to it since `known`. @return whether it was
  bool forget(const Name& name) {
    const std::scoped_lock lock(mutex_);
    return std::erase_if(newest_last_, [&](const Name& other) {
             return is_known(other) && other.path == name.path && other.file == name.file;
           }) > 0;
  }

 private:
  static bool is_known(const Name& name) { return name.under_way == 0 && name.file.exists(); }

  std::list<Name>::iterator find(const std::string& path) {
    return std::ranges::find(newest_last_, path, &Name::path);
  }
  void drop_oldest() {
    std::size_t idle =
        static_cast<std::size_t>(std::ranges::count(newest_last_, 0u, &Name::under_way));
    std::erase_if(newest_last_,
                  [&](const Name& name) { return name.under_way == 0 && idle-- > kMost; });
  }

  std::mutex mutex_;
  std::list<Name> newest_last_;
};

/// A forked child has saved nothing yet, and in its copy of the parent's names somebody may hold
/// the mutex for ever: it gets its own. Never destroyed: background threads come here while the
/// process exits.
SavedNames& of_this_process() {
  static std::atomic<SavedNames*> current{nullptr};
  // Pairs with the exchange: what it points to is made.
  SavedNames* known = current.load(std::memory_order_acquire);
  while (known == nullptr || known->owner != ::getpid()) {
    auto fresh = std::make_unique<SavedNames>();
    if (current.compare_exchange_weak(known, fresh.get(), std::memory_order_acq_rel)) {
      known = fresh.release();
    }
  }
  return *known;
}

bool is_replaced(const Name& name, const std::vector<Name>& known) {
  try {
    const os::FileIdentity now = store::file_at(store::system_files(), name.path);
    if (!now.exists() || !name.file.is_replaced_by(now)) return false;
    // One directory may have two names: a link leads to it.
    return std::ranges::find(known, now, &Name::file) == known.end();
  } catch (const Error&) {
    return false;  // nobody can tell
  }
}

}  // namespace

SaveToName::SaveToName(std::string path) : path_(std::move(path)) {
  of_this_process().begin(path_);
}

SaveToName::~SaveToName() {
  if (!committed_) of_this_process().end(path_, {});
}

void SaveToName::committed(const os::FileIdentity& file) {
  if (std::exchange(committed_, true)) return;
  of_this_process().end(path_, file);
}

std::vector<std::string> warnings_of_replaced(const base::LogContext& log) {
  SavedNames& names = of_this_process();
  std::vector<std::string> warnings;
  // Looked at without the mutex: a file system may take its time.
  const std::vector<Name> known = names.known();
  for (const Name& name : known) {
    if (!is_replaced(name, known) || !names.forget(name)) continue;
    warnings.push_back(fmt::format(
        "somebody has replaced {}, which this process has saved: is another process saving there "
        "as rank {} too?",
        name.path, log.rank));
    log.warn("{}", warnings.back());
  }
  return warnings;
}

}  // namespace ckptring::save
