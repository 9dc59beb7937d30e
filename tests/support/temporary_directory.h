// A fresh directory for one test, removed with everything in it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace ckptring::test {

class TemporaryDirectory {
 public:
  /// Below $TMPDIR.
  TemporaryDirectory() : TemporaryDirectory(default_base()) {}
  explicit TemporaryDirectory(const std::string& base) {
    std::string name = base + "/ckptring-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
    path_ = std::filesystem::canonical(name).string();
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  /// Without symbolic links.
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /// A path inside.
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  static std::string default_base() {
    const char* const base = std::getenv("TMPDIR");
    return base != nullptr && *base != '\0' ? base : "/tmp";
  }

  std::string path_;
};

}  // namespace ckptring::test
