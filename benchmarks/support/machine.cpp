#include "support/machine.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <linux/magic.h>

#include <fmt/format.h>

namespace bench {
namespace {

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

/// What the driver says of its devices; empty without one.
nlohmann::ordered_json nvidia() {
  const std::filesystem::path driver = "/proc/driver/nvidia";
  nlohmann::ordered_json found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(driver / "gpus", none)) {
    std::ifstream information(entry.path() / "information");
    for (std::string line; std::getline(information, line);) {
      if (!line.starts_with("Model:")) continue;
      found["devices"].push_back(line.substr(line.find_first_not_of(" \t", line.find(':') + 1)));
    }
  }
  std::ifstream version(driver / "version");
  if (std::string line; std::getline(version, line)) found["driver"] = line;
  return found;
}

}  // namespace

nlohmann::ordered_json describe_machine() {
  struct ::utsname kernel {};
  struct ::sysinfo memory {};
  std::array<double, 1> load{};
  if (::uname(&kernel) != 0 || ::sysinfo(&memory) != 0) {
    throw std::system_error(errno, std::generic_category(), "describe the machine");
  }
  if (::getloadavg(load.data(), static_cast<int>(load.size())) != 1) load[0] = -1;
  nlohmann::ordered_json machine = {
      {"processor", processor()},
      {"cores", std::thread::hardware_concurrency()},
      {"memory_bytes", static_cast<std::uint64_t>(memory.totalram) * memory.mem_unit},
      {"kernel", std::string(kernel.sysname) + " " + kernel.release},
      {"load_1min", load[0]},
  };
  if (nlohmann::ordered_json found = nvidia(); !found.empty()) machine["nvidia"] = std::move(found);
  if (const char* commit = std::getenv("CKPTRING_COMMIT")) machine["commit"] = commit;
  return machine;
}

std::string file_system_of(const std::string& directory) {
  struct ::statfs status {};
  if (::statfs(directory.c_str(), &status) != 0) {
    throw std::system_error(errno, std::generic_category(), directory);
  }
  switch (status.f_type) {
    case EXT4_SUPER_MAGIC:
      return "ext4";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case F2FS_SUPER_MAGIC:
      return "f2fs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlay";
    case NFS_SUPER_MAGIC:
      return "nfs";
    default:
      return fmt::format("type {:#x}", status.f_type);
  }
}

}  // namespace bench
