#include "checkpoint_files.h"

#include "store/missing.h"
#include "store/temporary_name.h"

#include <ckptring/error.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

namespace ckptring::command {

std::vector<std::string> checkpoint_files(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw store::error_at(store::system_files(), error ? error.value() : ENOENT, "look at", path);
  }
  if (!fs::is_directory(status)) return {path};

  std::vector<std::pair<int, std::string>> found;
  fs::directory_iterator entry(path, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (const auto rank = store::rank_of_final_name(entry->path().filename().native())) {
      found.emplace_back(*rank, entry->path().native());
    }
  }
  if (error) throw Error::from_errno(error.value(), "list", path);
  if (found.empty()) {
    throw Error(ErrorCode::not_found, "look at", path, "no checkpoint_{rank}.pt is in it");
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> files;
  files.reserve(found.size());
  for (auto& [rank, file] : found) files.push_back(std::move(file));
  return files;
}

}  // namespace ckptring::command
