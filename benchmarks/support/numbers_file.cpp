#include "support/numbers_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace bench {
namespace {

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
}

bool sync(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool synced = ::fsync(fd) == 0;
  (void)::close(fd);
  return synced;
}

std::string directory_of(const std::string& path) {
  return std::filesystem::absolute(path).parent_path().string();
}

void replace(const std::string& path, const std::string& text) {
  const std::string fresh = path + ".new";
  write_text(fresh, text);
  if (!sync(fresh)) throw std::runtime_error("cannot sync " + fresh);
  std::filesystem::rename(fresh, path);
  (void)sync(directory_of(path));  // not every file system can; the file is whole in any case
}

std::string text_of(const Report& report) { return report.to_json().dump(2) + '\n'; }

}  // namespace

NumbersFile::NumbersFile(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  // The file itself is replaced, not a link to it.
  std::error_code missing;
  const std::filesystem::path target = std::filesystem::canonical(path_, missing);
  if (!missing) path_ = target.string();
  replaced_ =
      missing ? !std::filesystem::is_symlink(path_) : std::filesystem::is_regular_file(target);
  if (replaced_ && ::access(directory_of(path_).c_str(), W_OK) != 0) {
    throw std::system_error(errno, std::generic_category(), "cannot write " + path_);
  }
}

void NumbersFile::write(const Report& report) {
  if (path_.empty()) return;
  if (replaced_) {
    replace(path_, text_of(report));
  } else {
    write_text(path_, text_of(report));
  }
  so_far_.clear();
}

AfterRound NumbersFile::after_round(const Report& report, std::function<void(Report&)> add) {
  if (!replaced_) return [](const std::string&) {};
  return [this, &report, add = std::move(add)](const std::string& done) {
    Report unfinished = report;
    add(unfinished);
    unfinished.note("unfinished: " + done);
    replace(path_, text_of(unfinished));
    so_far_ = done;
  };
}

}  // namespace bench
