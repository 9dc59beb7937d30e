#include "process/locate_drain.h"

#include <ckptring/error.h>
#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

namespace ckptring::process {
namespace {

constexpr const char* kOperation = "find the checkpoint process's program";

DrainProgram usable(const std::string& path, const char* named_by) {
  if (path.empty() || path[0] != '/') {
    throw Error(ErrorCode::invalid_argument, kOperation, path,
                std::string(named_by) + " must name it by an absolute path");
  }
  if (::access(path.c_str(), X_OK) != 0) {
    const int why = errno;
    throw Error(ErrorCode::process_failed, kOperation, path,
                std::string(std::strerror(why)) + " (named by " + named_by + ")", why);
  }
  return {path, true};
}

/// The folder of the object file that this function was loaded from.
std::string own_folder() {
  Dl_info info{};
  std::array<char, PATH_MAX> real{};
  if (::dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 ||
      info.dli_fname == nullptr || ::realpath(info.dli_fname, real.data()) == nullptr) {
    // The main program may be known only by the name it was called with.
    if (::realpath("/proc/self/exe", real.data()) == nullptr) return {};
  }
  const std::string path = real.data();
  return path.substr(0, path.rfind('/'));
}

}  // namespace

DrainProgram locate_drain(const std::string& configured) {
  if (!configured.empty()) return usable(configured, "CheckpointProcessConfig::executable");
  const char* const named = std::getenv("CKPTRING_DRAIN");
  if (named != nullptr && *named != '\0') return usable(named, "CKPTRING_DRAIN");
  const std::string folder = own_folder();
  const std::string beside = folder + "/ckptring-drain";
  const std::string installed = folder + "/../libexec/ckptring/ckptring-drain";
  for (const std::string& path : {beside, installed}) {
    if (::access(path.c_str(), X_OK) == 0) return {path, false};
  }
  throw Error(ErrorCode::process_failed, kOperation, "",
              "looked for " + beside + " and " + installed +
                  "; name it in CheckpointProcessConfig::executable or CKPTRING_DRAIN");
}

}  // namespace ckptring::process
