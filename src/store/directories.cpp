#include "store/directories.h"

#include "store/missing.h"

#include <ckptring/error.h>

#include <algorithm>
#include <utility>

namespace ckptring::store {
namespace {

constexpr int kAttempts = 16;

}  // namespace

std::string path_in(const std::string& directory, std::string_view name) {
  std::string path = directory;
  if (!path.ends_with('/')) path += '/';
  return path.append(name);
}

os::UninheritedFd open_directory(FileSystem& files, const std::string& path) {
  os::UninheritedFd fd = open_file(files, path, O_RDONLY | O_DIRECTORY);
  if (fd || errno == ENOENT) return fd;
  const Error error = Error::from_errno(errno, "open directory", path);
  if (error.errno_value() != EACCES) throw error;
  throw Error(error.code(), error.operation(), path,
              error.cause() + ": what cannot be read cannot be synced, and so holds no save",
              error.errno_value());
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
    const int error = errno;
    if (error == EEXIST) return;
    if (error != ENOENT || path == "/") throw Error::from_errno(error, "make directory", path);
    make_ancestor(levels + 1);
  }
  throw not_found(files_, "make directory", path);
}

void SaveDirectories::claim_missing() {
  made_.clear();
  for (std::uint32_t level = target_.missing_levels; level > 0; --level) {
    made_.push_back(ancestor(level - 1));
  }
}

bool SaveDirectories::open() {
  opened_.clear();
  for (std::uint32_t level = 0; level <= sync_levels_; ++level) {
    os::UninheritedFd fd = open_directory(files_, ancestor(level));
    if (!fd) return false;
    opened_.push_back(std::move(fd));
  }
  return true;
}

void SaveDirectories::sync(const PhaseRecorder& record) const {
  for (std::uint32_t level = 0; level < opened_.size(); ++level) {
    // Some file systems have nothing to sync in a directory and say so by EINVAL.
    if (files_.fsync(opened_[level].get()) != 0 && errno != EINVAL) {
      const int error = errno;
      const std::string path = ancestor(level);
      errno = error;
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
