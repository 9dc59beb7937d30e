#include "memory.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace demo {
namespace {

// The ring is a memfd; nothing else of the checkpoint process's is.
constexpr const char* kMemfd = "/memfd:";

std::uint64_t allocated_memfds(const std::filesystem::path& process) {
  std::uint64_t bytes = 0;
  std::error_code gone;
  for (const auto& descriptor : std::filesystem::directory_iterator(process / "fd", gone)) {
    const auto target = std::filesystem::read_symlink(descriptor.path(), gone);
    struct stat status {};
    if (target.string().starts_with(kMemfd) && ::stat(descriptor.path().c_str(), &status) == 0) {
      bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
    }
  }
  return bytes;
}

std::uint64_t own_memory(const std::filesystem::path& process) {
  std::uint64_t bytes = 0;
  std::ifstream maps(process / "smaps");
  std::string line;
  bool in_ring = false;
  while (std::getline(maps, line)) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t kibibytes = 0;
    words >> name;
    if (name.empty() || name.back() != ':') {
      in_ring = line.find(kMemfd) != std::string::npos;  // a mapping's first line
    } else if (!in_ring && name == "Pss:" && words >> kibibytes) {
      bytes += kibibytes * 1024;
    }
  }
  return bytes;
}

}  // namespace

SharedRing measure_ring(int process_id) {
  const auto process = std::filesystem::path("/proc") / std::to_string(process_id);
  return {allocated_memfds(process), own_memory(process)};
}

}  // namespace demo
