#include "store/directories.h"
#include "store/file_sink.h"
#include "store/missing.h"
#include "store/temporary_name.h"

#include <ckptring/error.h>

#include <unistd.h>

#include <array>
#include <climits>
#include <limits>
#include <string_view>

namespace ckptring::store {
namespace {

constexpr const char* kOperation = "save to";

[[noreturn]] void unusable(const std::string& path, std::string cause, int errno_value = 0) {
  throw Error(ErrorCode::invalid_argument, kOperation, path, std::move(cause), errno_value);
}

std::string absolute(const std::string& path) {
  if (path.starts_with('/')) return path;
  std::array<char, PATH_MAX> current{};
  if (::getcwd(current.data(), current.size()) == nullptr) {
    unusable(path, "the path is not absolute and there is no current directory", errno);
  }
  return path_in(current.data(), path);
}

}  // namespace

SaveTarget make_target(FileSystem& files, const std::string& path, const RankInfo& rank,
                       std::uint64_t total_bytes, const std::string& file_name) {
  if (path.empty()) unusable(path, "the path is empty");
  if (path.find('\0') != std::string::npos) unusable(path, "the path contains a zero byte");
  if (rank.global_world_size < 1 || rank.global_rank < 0 ||
      rank.global_rank >= rank.global_world_size) {
    unusable(path, "the rank " + std::to_string(rank.global_rank) + " is not one of a world of " +
                       std::to_string(rank.global_world_size));
  }
  if (total_bytes > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()) - 4096) {
    unusable(path, "the file would be larger than any file can be");
  }

  SaveTarget target{};
  target.rank = rank;
  target.total_bytes = total_bytes;
  if (const auto problem = file_name_problem(file_name); problem && !file_name.empty()) {
    unusable(path, "no file can be saved under the name \"" + file_name + "\": " + *problem);
  }
  target.final_name = file_name.empty() ? final_name(rank.global_rank) : file_name;
  target.temporary_name = new_temporary_name(target.final_name);

  const std::string full = absolute(path);
  if (full.size() + 1 + target.temporary_name.size() >= PATH_MAX) {
    unusable(path, "the path is too long", ENAMETOOLONG);
  }
  std::string directory;  // without a slash at its end; empty stands for the root
  for (std::size_t at = 0; at < full.size();) {
    const std::size_t slash = std::min(full.find('/', at), full.size());
    const std::string part = full.substr(at, slash - at);
    at = slash + 1;
    if (part.empty() || part == ".") continue;
    if (part.size() > NAME_MAX) unusable(path, "a name in the path is too long", ENAMETOOLONG);
    if (target.missing_levels > 0) {
      // Nothing exists here yet, so there is no link that ".." could lead out of.
      if (part == "..") {
        directory.resize(directory.rfind('/'));
        --target.missing_levels;
      } else {
        directory += '/' + part;
        ++target.missing_levels;
      }
      continue;
    }
    directory += '/' + part;
    struct ::stat status {};
    if (files.stat(directory, status, /*follow=*/true) == 0) {
      if (!S_ISDIR(status.st_mode)) {
        unusable(path, directory + " is a file, not a directory", ENOTDIR);
      }
      target.device = status.st_dev;
    } else if (errno == ENOENT) {
      if (!dangling_link_in(files, directory).empty()) throw not_found(files, kOperation, full);
      target.missing_levels = 1;
    } else if (errno == ENAMETOOLONG) {
      unusable(path, "a name in the path is too long", errno);
    } else {
      throw Error::from_errno(errno, kOperation, path);
    }
  }
  target.directory = directory.empty() ? "/" : directory;

  if (target.missing_levels == 0) {
    struct ::stat status {};
    const std::string final_path = path_in(target.directory, target.final_name);
    if (files.stat(final_path, status, /*follow=*/false) == 0 && S_ISDIR(status.st_mode)) {
      unusable(path, final_path + " is a directory, where the file has to go", EISDIR);
    }
  }
  return target;
}

}  // namespace ckptring::store
