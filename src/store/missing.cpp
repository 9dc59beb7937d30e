#include "store/missing.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace ckptring::store {
namespace {

bool is_dangling(FileSystem& files, const std::string& path) {
  struct ::stat status {};
  return files.stat(path, status, /*follow=*/false) == 0 && S_ISLNK(status.st_mode) &&
         files.stat(path, status, /*follow=*/true) != 0 && errno == ENOENT;
}

}  // namespace

std::string dangling_link_in(FileSystem& files, const std::string& path) {
  for (std::size_t at = 0; at < path.size();) {
    at = std::min(path.find('/', at + 1), path.size());
    std::string part = path.substr(0, at);
    if (is_dangling(files, part)) return part;
  }
  return {};
}

Error not_found(FileSystem& files, std::string operation, const std::string& path) {
  Error plain = Error::from_errno(ENOENT, std::move(operation), path);
  const std::string link = dangling_link_in(files, path);
  if (link.empty()) return plain;
  return {plain.code(), plain.operation(), path,
          plain.cause() + ": " + link + " is a symbolic link, and leads to nothing", ENOENT};
}

Error error_at(FileSystem& files, int errno_value, std::string operation, const std::string& path) {
  if (errno_value == ENOENT) return not_found(files, std::move(operation), path);
  return Error::from_errno(errno_value, std::move(operation), path);
}

}  // namespace ckptring::store
