#include "os/memory_left.h"

#include "os/read_file.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <optional>
#include <sstream>

namespace ckptring::os {
namespace {

/// The number behind `key` in a file of "key number" lines; `key` empty: the file's only number.
std::optional<std::uint64_t> number_in(const std::string& file, const std::string& key) {
  std::istringstream in(read_file(file).value_or(""));
  std::string word;
  if (key.empty()) {
    std::uint64_t value = 0;
    if (in >> value) return value;
    return std::nullopt;  // missing, or "max"
  }
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::uint64_t value = 0;
    if (words >> word && word == key && words >> value) return value;
  }
  return std::nullopt;
}

struct CgroupFiles {
  const char* hierarchy;
  const char* limit;
  const char* usage;
  const char* droppable;  ///< key in memory.stat
};
constexpr CgroupFiles kVersion2{"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
constexpr CgroupFiles kVersion1{"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                "memory.usage_in_bytes", "total_inactive_file"};

/// Takes the tightest limit on the way from `group` to the root of the hierarchy.
void apply(const CgroupFiles& files, const std::string& root, std::string group, MemoryLeft& left) {
  for (;;) {
    const std::string folder = root + files.hierarchy + (group == "/" ? std::string{} : group);
    const auto limit = number_in(folder + "/" + files.limit, "");
    const auto usage = number_in(folder + "/" + files.usage, "");
    if (limit && usage) {
      const std::uint64_t used =
          *usage -
          std::min(*usage, number_in(folder + "/memory.stat", files.droppable).value_or(0));
      const std::uint64_t rest = *limit > used ? *limit - used : 0;
      if (rest < left.bytes) left = {rest, folder};
    }
    const auto slash = group.rfind('/');
    if (group.size() <= 1 || slash == std::string::npos) return;
    group = slash == 0 ? "/" : group.substr(0, slash);
  }
}

}  // namespace

MemoryLeft memory_left(const std::string& root) {
  MemoryLeft left{UINT64_MAX, "MemAvailable"};
  if (const auto available = number_in(root + "/proc/meminfo", "MemAvailable:")) {
    left.bytes = *available * 1024;
  } else {
    struct sysinfo info {};
    if (::sysinfo(&info) == 0) left.bytes = std::uint64_t{info.totalram} * info.mem_unit;
  }
  std::istringstream groups(read_file(root + "/proc/self/cgroup").value_or(""));
  std::string line;
  while (std::getline(groups, line)) {  // "id:controllers:path"
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) apply(kVersion2, root, group, left);
    if (controllers == "memory") apply(kVersion1, root, group, left);
  }
  return left;
}

}  // namespace ckptring::os
