#include "support/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>

namespace bench {
namespace {

std::ifstream open_proc(::pid_t process, const char* name) {
  const std::string path = "/proc/" + std::to_string(process) + "/" + name;
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  return file;
}

/// Calls `take(name, bytes)` for each "Name:  123 kB", and `other(line)` for other lines.
template <class Take, class Other>
void for_each_size(std::istream& file, Take&& take, Other&& other) {
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t kibibytes = 0;
    if (words >> name && name.ends_with(':')) {
      if (words >> kibibytes) take(name, kibibytes * 1024);
    } else {
      other(line);
    }
  }
}

struct Living {
  ::pid_t process;
  ::pid_t parent;
};

/// All processes, without those that have ended and were not waited for.
std::vector<Living> everybody() {
  std::vector<Living> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream stat(entry.path() / "stat");
    std::string line;
    std::getline(stat, line);  // empty if it is gone by now
    // The second field is the name in parentheses and may hold anything; then state and parent.
    const std::size_t name_end = line.rfind(") ");
    if (name_end == std::string::npos) continue;
    std::istringstream fields(line.substr(name_end + 2));
    char state = 0;
    ::pid_t parent = 0;
    if (fields >> state >> parent && state != 'Z' && state != 'X') {
      found.push_back({std::stoi(name), parent});
    }
  }
  return found;
}

double seconds(const ::timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

}  // namespace

ProcessMemory memory_of(::pid_t process) {
  ProcessMemory memory;
  std::ifstream rollup = open_proc(process, "smaps_rollup");
  for_each_size(
      rollup,
      [&](const std::string& name, std::uint64_t bytes) {
        if (name == "Pss:") memory.pss = bytes;
        if (name == "Pss_Anon:") memory.pss_anonymous = bytes;
        if (name == "Pss_File:") memory.pss_file = bytes;
        if (name == "Pss_Shmem:") memory.pss_shared_memory = bytes;
      },
      [](const std::string&) {});
  if (memory.pss == 0) {
    throw std::runtime_error("the memory of process " + std::to_string(process) +
                             " cannot be looked at");
  }
  std::ifstream status = open_proc(process, "status");
  for_each_size(
      status,
      [&](const std::string& name, std::uint64_t bytes) {
        if (name == "VmPTE:") memory.page_tables = bytes;
      },
      [](const std::string&) {});
  return memory;
}

ProcessWithoutRing memory_without_ring(::pid_t process) {
  ProcessWithoutRing memory;
  std::ifstream maps = open_proc(process, "smaps");
  bool in_ring = false;
  for_each_size(
      maps,
      [&](const std::string& name, std::uint64_t bytes) {
        if (in_ring && name == "Size:") memory.ring_bytes += bytes;
        if (!in_ring && name == "Pss:") memory.pss_bytes += bytes;
        if (!in_ring && name == "Rss:") memory.rss_bytes += bytes;
      },
      // Each mapping begins with a line of another form.
      [&](const std::string& line) { in_ring = line.find("/memfd:") != std::string::npos; });
  return memory;
}

std::vector<::pid_t> session_of(::pid_t leader) {
  std::vector<::pid_t> members;
  for (const Living& one : everybody()) {
    if (::getsid(one.process) == leader) members.push_back(one.process);
  }
  return members;
}

std::vector<::pid_t> family_of(::pid_t leader) {
  const std::vector<::pid_t> session = session_of(leader);
  std::vector<::pid_t> members = session;
  for (const Living& one : everybody()) {
    if (std::ranges::count(session, one.parent) > 0 &&
        std::ranges::count(session, one.process) == 0)
      members.push_back(one.process);
  }
  return members;
}

double cpu_seconds_of(::pid_t process) {
  ::clockid_t clock{};
  ::timespec time{};
  int error = ::clock_getcpuclockid(process, &clock);
  if (error == 0 && ::clock_gettime(clock, &time) != 0) error = errno;
  if (error != 0) {
    throw std::system_error(error, std::generic_category(),
                            "read the processor time of process " + std::to_string(process));
  }
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double own_cpu_seconds() {
  struct ::rusage usage {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) {
    throw std::system_error(errno, std::generic_category(), "getrusage");
  }
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace bench
