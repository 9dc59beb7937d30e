#include "supervise/drain_program.h"

#include "base/system_words.h"

#include <ckptring/error.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <string_view>

namespace ckptring::supervise {
namespace {

constexpr const char* kOperation = "find the checkpoint process's program";

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

std::vector<std::string> environment_for(bool users_own) {
  std::vector<std::string> kept;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const bool wanted =
        users_own ? !text.starts_with("LD_PRELOAD=") : text.starts_with("LD_LIBRARY_PATH=");
    if (wanted) kept.emplace_back(text);
  }
  return kept;
}

bool is_script(int program) {
  std::array<char, 2> begin{};
  return ::pread(program, begin.data(), begin.size(), 0) == 2 && begin[0] == '#' && begin[1] == '!';
}

}  // namespace

DrainProgram::DrainProgram(const std::string& configured) {
  const char* const named = std::getenv("CKPTRING_DRAIN");
  if (!configured.empty()) {
    named_by_ = "CheckpointProcessConfig::executable";
    places_ = {configured};
  } else if (named != nullptr && *named != '\0') {
    named_by_ = "CKPTRING_DRAIN";
    places_ = {named};
  } else {
    const std::string folder = own_folder();
    places_ = {folder + "/ckptring-drain", folder + "/../libexec/ckptring/ckptring-drain"};
  }
  environment_ = environment_for(!named_by_.empty());
}

std::string DrainProgram::locate() const {
  if (named_by_.empty()) {
    for (const std::string& path : places_) {
      if (::access(path.c_str(), X_OK) == 0) return path;
    }
    throw Error(ErrorCode::process_failed, kOperation, "",
                "looked for " + places_.front() + " and " + places_.back() +
                    "; name it in CheckpointProcessConfig::executable or CKPTRING_DRAIN");
  }
  const std::string& path = places_.front();
  if (path.empty() || path[0] != '/') {
    throw Error(ErrorCode::invalid_argument, kOperation, path,
                named_by_ + " must name it by an absolute path");
  }
  if (::access(path.c_str(), X_OK) != 0) {
    const int why = errno;
    throw Error(ErrorCode::process_failed, kOperation, path,
                base::words_of_errno(why) + " (named by " + named_by_ + ")", why);
  }
  return path;
}

DrainExecutable DrainProgram::executable() const {
  {
    const std::scoped_lock lock(mutex_);
    if (kept_.file) return kept_;
  }
  DrainExecutable found{locate(), nullptr};
  os::UninheritedFd file = os::open_uninherited(found.path, O_RDONLY | O_NONBLOCK);
  if (file && is_script(file.get())) return found;
  // Scripts can be read, or they could not be executed.
  if (!file && errno == EACCES) file = os::open_uninherited(found.path, O_PATH);
  // One that cannot be opened is started by its path, and says itself why that does not work.
  if (file) found.file = std::make_shared<const os::UninheritedFd>(std::move(file));
  return found;
}

void DrainProgram::keep(const DrainExecutable& executable) {
  const std::scoped_lock lock(mutex_);
  if (!kept_.file) kept_ = executable;
}

}  // namespace ckptring::supervise
