#include "save/saved_files.h"

#include "base/log.h"
#include "os/own_thread.h"
#include "store/directories.h"
#include "store/file_at.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <utility>

namespace ckptring::save {
namespace {

constexpr std::size_t kMost = 16;
constexpr std::uint64_t kNobody = 0;

/// Of a checkpointer, or of a save. A forked child goes on counting: it has copies of these.
std::uint64_t new_number() noexcept {
  static std::atomic<std::uint64_t> last{kNobody};
  return 1 + last.fetch_add(1, std::memory_order_relaxed);  // orders nothing
}

struct UnderWay {
  std::uint64_t number;
  std::uint64_t saver;
  bool alone;  ///< it has met no save of another checkpointer
};

struct Name {
  std::string path;
  std::string shown_path;
  std::uint64_t device = 0;
  std::uint64_t saver = kNobody;  ///< whose last save to it was
  std::vector<UnderWay> under_way = {};
  os::FileIdentity file{};  ///< the saver's last one, if that is known
};

/// The names that this process has saved to.
class SavedNames {
 public:
  const pid_t owner = ::getpid();

  void begin(std::uint64_t saver, std::uint64_t number, const std::string& path,
             const std::string& shown_path, std::uint64_t device) {
    const std::scoped_lock lock(mutex_);
    const auto known = find(path);
    if (known != newest_last_.end()) {
      newest_last_.splice(newest_last_.end(), newest_last_, known);
    } else {
      newest_last_.push_back({.path = path, .shown_path = ""});
    }
    Name& name = newest_last_.back();
    name.shown_path = shown_path;
    name.device = device;
    if (std::exchange(name.saver, saver) != saver) name.file = {};
    const bool alone = std::ranges::all_of(
        name.under_way, [&](const UnderWay& other) { return other.saver == saver; });
    if (!alone) {
      for (UnderWay& other : name.under_way) other.alone = false;
    }
    name.under_way.push_back({number, saver, alone});
    drop_oldest_of(saver);
  }

  /// @return whether the save has replaced somebody else's file, where its saver's was
  bool end(const std::string& path, std::uint64_t number, const os::FileIdentity& file,
           const os::FileIdentity& replaced) noexcept {
    const std::scoped_lock lock(mutex_);
    const auto name = find(path);
    if (name == newest_last_.end()) return false;
    const auto save = std::ranges::find(name->under_way, number, &UnderWay::number);
    if (save == name->under_way.end()) return false;
    const bool alone = save->alone;
    name->under_way.erase(save);
    // Committed by one checkpointer one after the other.
    const os::FileIdentity before = std::exchange(name->file, alone ? file : os::FileIdentity{});
    if (name->saver == kNobody && name->under_way.empty()) newest_last_.erase(name);
    return alone && is_others(before, replaced);
  }

  /// Those of which it is known what should be there, the newest first.
  std::vector<Name> known_of(std::uint64_t saver) {
    const std::scoped_lock lock(mutex_);
    std::vector<Name> names;
    std::copy_if(newest_last_.rbegin(), newest_last_.rend(), std::back_inserter(names),
                 [&](const Name& name) { return name.saver == saver && is_known(name); });
    return names;
  }

  /// `found` was found there: if that is somebody else's file, and nothing has happened to the name
  /// since `known_of`, it is forgotten.
  /// @return whether that is so
  bool forget_if_others(const Name& name, const os::FileIdentity& found) {
    const std::scoped_lock lock(mutex_);
    const auto known = find(name.path);
    if (known == newest_last_.end() || known->saver != name.saver || !is_known(*known) ||
        known->file != name.file || !is_others(known->file, found)) {
      return false;
    }
    newest_last_.erase(known);
    return true;
  }

  void forget_all_of(std::uint64_t saver) noexcept {
    const std::scoped_lock lock(mutex_);
    std::erase_if(newest_last_, [&](Name& name) {
      if (name.saver != saver) return false;
      name.saver = kNobody;
      name.file = {};
      return name.under_way.empty();
    });
  }

 private:
  static bool is_known(const Name& name) { return name.under_way.empty() && name.file.exists(); }

  /// Whether `now` is nobody's of this process, where `known` was.
  [[nodiscard]] bool is_others(const os::FileIdentity& known, const os::FileIdentity& now) const {
    if (!known.exists() || !now.exists() || !known.is_replaced_by(now)) return false;
    // One directory may be mounted twice.
    return std::ranges::find(newest_last_, now, &Name::file) == newest_last_.end();
  }

  std::list<Name>::iterator find(const std::string& path) {
    return std::ranges::find(newest_last_, path, &Name::path);
  }
  void drop_oldest_of(std::uint64_t saver) {
    const auto idle = [&](const Name& name) {
      return name.saver == saver && name.under_way.empty();
    };
    auto count = static_cast<std::size_t>(std::ranges::count_if(newest_last_, idle));
    std::erase_if(newest_last_, [&](const Name& name) { return idle(name) && count-- > kMost; });
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

/// The same for all names that links give to a directory. Who looks there goes through no link.
std::string real_path(const store::SaveTarget& target) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::weakly_canonical(target.directory, error);
  return store::path_in(error ? target.directory : real.string(), target.final_name);
}

std::string warning_of(const std::string& path, int rank) {
  return fmt::format(
      "somebody has replaced {}, which this process has saved: is another process saving there as "
      "rank {} too?",
      path, rank);
}

/// A file system may take its time, or hang. None if nobody can tell.
os::FileIdentity look_at(const Name& name) {
  try {
    return store::regular_file_at(store::system_files(), name.path);
  } catch (const Error&) {
    return {};
  }
}

/// What was found under the names that were looked at so far.
struct Looks {
  explicit Looks(std::vector<Name> at) : names(std::move(at)) { found.reserve(names.size()); }

  const std::vector<Name> names;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<os::FileIdentity> found;
};

/// Ends by itself, unless a file system hangs.
void look_at_all(Looks& looks) {
  for (const Name& name : looks.names) {
    const os::FileIdentity found = look_at(name);
    const std::scoped_lock lock(looks.mutex);
    looks.found.push_back(found);
    looks.changed.notify_all();
  }
}

/// @return what was found within that time, for the first of the names
std::vector<os::FileIdentity> look_for(double limit_secs, const std::vector<Name>& names) {
  const auto looks = std::make_shared<Looks>(names);
  os::OwnThread thread("ckptring-look", os::OwnThread::Priority::foreground,
                       [looks] { look_at_all(*looks); });
  std::unique_lock lock(looks->mutex);
  const bool all = looks->changed.wait_for(lock, std::chrono::duration<double>(limit_secs),
                                           [&] { return looks->found.size() == names.size(); });
  std::vector<os::FileIdentity> found = std::move(looks->found);
  lock.unlock();
  if (!all) thread.detach();  // it uses nothing but what it has
  return found;
}

}  // namespace

SavedFiles::SavedFiles(int rank) : rank_(rank), saver_(new_number()) {
  (void)of_this_process();  // so that later it needs no memory
}

SavedFiles::~SavedFiles() { of_this_process().forget_all_of(saver_); }

std::vector<std::string> SavedFiles::warnings_of_replaced(std::uint64_t device) const {
  SavedNames& names = of_this_process();
  std::vector<std::string> warnings;
  for (const Name& name : names.known_of(saver_)) {
    if (name.device != device || !names.forget_if_others(name, look_at(name))) continue;
    warnings.push_back(warning_of(name.shown_path, rank_));
  }
  return warnings;
}

void SavedFiles::close(double limit_secs) const noexcept {
  SavedNames& names = of_this_process();
  try {
    const std::vector<Name> known = names.known_of(saver_);
    if (!known.empty() && limit_secs > 0) {
      const std::vector<os::FileIdentity> found = look_for(limit_secs, known);
      for (std::size_t i = 0; i < found.size(); ++i) {
        if (!names.forget_if_others(known[i], found[i])) continue;
        base::LogContext{rank_}.warn("{}", warning_of(known[i].shown_path, rank_));
      }
    }
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
    // The system allows no more threads or memory: nobody is told.
  }
  names.forget_all_of(saver_);
}

SaveToName::SaveToName(const SavedFiles& of, const store::SaveTarget& target)
    : rank_(of.rank_),
      shown_path_(store::path_in(target.directory, target.final_name)),
      path_(real_path(target)),
      number_(new_number()) {
  of_this_process().begin(of.saver_, number_, path_, shown_path_, target.device);
}

SaveToName::~SaveToName() {
  if (!committed_) (void)of_this_process().end(path_, number_, {}, {});
}

std::vector<std::string> SaveToName::committed(const os::FileIdentity& file,
                                               const os::FileIdentity& replaced) noexcept {
  if (std::exchange(committed_, true)) return {};
  if (!of_this_process().end(path_, number_, file, replaced)) return {};
  try {
    return {warning_of(shown_path_, rank_)};
  } catch (const std::bad_alloc&) {
    return {};
  }
}

}  // namespace ckptring::save
