// Where a benchmark writes, and that nothing of it stays.
#pragma once

#include <string>

namespace bench {

class WorkDirectory {
 public:
  /// A fresh directory below `parent`; if that is empty, below $TMPDIR, else /tmp.
  /// @throws std::system_error
  explicit WorkDirectory(const std::string& parent);
  /// Removes it with everything inside.
  ~WorkDirectory();
  WorkDirectory(const WorkDirectory&) = delete;
  WorkDirectory& operator=(const WorkDirectory&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  /// Removes everything inside and waits until the file system is at rest again, so that the
  /// next measurement does not pay for it.
  /// @throws std::system_error
  void clear() const;

 private:
  std::string path_;
};

}  // namespace bench
