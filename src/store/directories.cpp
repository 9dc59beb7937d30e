#include "store/directories.h"

#include <ckptring/error.h>

#include <algorithm>

namespace ckptring::store {
namespace {

constexpr int kAttempts = 16;

}  // namespace

std::string path_in(const std::string& directory, std::string_view name) {
  std::string path = directory;
  if (!path.ends_with('/')) path += '/';
  return path.append(name);
}

SaveDirectories::SaveDirectories(FileSystem& files, const SaveTarget& target)
    : files_(files), target_(target), sync_levels_(target.missing_levels) {}

void SaveDirectories::make() { make_ancestor(0); }

void SaveDirectories::make_ancestor(std::uint32_t levels) {
  std::string path = ancestor(levels);
  // Each round is lost only to another save's abort in just that moment.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (files_.mkdir(path, 0777) == 0) {
      sync_levels_ = std::max(sync_levels_, levels + 1);
      if (std::find(made_.begin(), made_.end(), path) == made_.end()) made_.push_back(path);
      return;
    }
    if (errno == EEXIST) return;
    if (errno != ENOENT || path == "/") break;
    make_ancestor(levels + 1);
  }
  throw Error::from_errno(errno, "make directory", path);
}

void SaveDirectories::claim_missing() {
  made_.clear();
  for (std::uint32_t level = target_.missing_levels; level > 0; --level) {
    made_.push_back(ancestor(level - 1));
  }
}

void SaveDirectories::sync(const PhaseRecorder& record) const {
  for (std::uint32_t level = 0; level <= sync_levels_; ++level) {
    const std::string path = ancestor(level);
    const os::UninheritedFd fd = open_file(files_, path, O_RDONLY | O_DIRECTORY);
    if (!fd) throw Error::from_errno(errno, "open directory", path);
    // Some file systems have nothing to sync in a directory and say so by EINVAL.
    if (files_.fsync(fd.get()) != 0 && errno != EINVAL) {
      const int error = errno;
      record(CommitPhase::sync_failed, path);
      throw Error::from_errno(error, "fsync", path);
    }
  }
}

void SaveDirectories::remove_made() noexcept {
  while (!made_.empty()) {
    if (files_.rmdir(made_.back()) != 0 && errno != ENOENT) break;
    made_.pop_back();
  }
  made_.clear();
}

std::string SaveDirectories::ancestor(std::uint32_t levels) const {
  std::string path = target_.directory;
  for (; levels > 0; --levels) {
    const std::size_t slash = path.rfind('/');
    path.resize(std::max<std::size_t>(slash, 1));
  }
  return path;
}

}  // namespace ckptring::store
