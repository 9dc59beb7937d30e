#include "base/out_of_memory.h"
#include "store/directories.h"
#include "store/leftovers.h"
#include "store/missing.h"
#include "store/temporary_name.h"

#include <ckptring/checkpoints.h>
#include <ckptring/error.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <ctime>

namespace ckptring {
namespace {

using store::Removal;

// Deeper than any checkpoint lies; keeps a hostile tree from exhausting the stack.
constexpr int kMaxDepth = 64;

double age_secs(const struct ::stat& status) {
  ::timespec now{};
  if (::clock_gettime(CLOCK_REALTIME, &now) != 0) return 0;
  return static_cast<double>(now.tv_sec - status.st_mtim.tv_sec) +
         1e-9 * static_cast<double>(now.tv_nsec - status.st_mtim.tv_nsec);
}

/// A temporary that is old enough.
void remove_dead(store::FileSystem& files, const std::string& path, CleanResult& result) {
  switch (store::remove_if_dead(files, path)) {
    case Removal::removed:
      result.removed.push_back(path);
      break;
    case Removal::in_use:
    case Removal::refused:
      result.in_use.push_back(path);
      break;
    case Removal::gone:
      break;
  }
}

void clean_below(store::FileSystem& files, const std::string& directory, double min_age_secs,
                 int depth, CleanResult& result) {
  std::vector<std::string> names;
  if (files.list(directory, names) != 0) {
    // Removed meanwhile by its save, or not ours to look into.
    if (depth > 0 && (errno == ENOENT || errno == EACCES)) return;
    throw Error::from_errno(errno, "list directory", directory);
  }
  for (const std::string& name : names) {
    const std::string path = store::path_in(directory, name);
    struct ::stat status {};
    // Links are not followed: they may lead out of the directory.
    if (files.stat(path, status, /*follow=*/false) != 0) {
      if (errno == ENOENT) continue;
      if (depth > 0 && errno == EACCES) return;  // may be listed, and no more
      throw Error::from_errno(errno, "look at", path);
    }
    if (S_ISDIR(status.st_mode)) {
      if (depth < kMaxDepth) clean_below(files, path, min_age_secs, depth + 1, result);
    } else if (S_ISREG(status.st_mode) && store::final_name_of_temporary(name)) {
      if (age_secs(status) < min_age_secs) {
        result.in_use.push_back(path);
      } else {
        remove_dead(files, path, result);
      }
    }
  }
}

}  // namespace

CleanResult clean(const std::string& directory, double min_age_secs) {
  if (!(min_age_secs >= 0)) {
    throw Error(ErrorCode::invalid_argument, "clean", directory, "min_age_secs is negative");
  }
  std::array<char, PATH_MAX> absolute{};
  if (::realpath(directory.c_str(), absolute.data()) == nullptr) {
    throw error_at(store::system_files(), errno, "clean", directory);
  }
  return base::or_out_of_memory("clean", directory, [&] {
    CleanResult result;
    clean_below(store::system_files(), absolute.data(), min_age_secs, 0, result);
    return result;
  });
}

}  // namespace ckptring
