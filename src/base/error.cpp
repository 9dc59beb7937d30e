#include "base/system_words.h"

#include <ckptring/error.h>

#include <array>
#include <cerrno>
#include <utility>

namespace ckptring {
namespace {

constexpr std::array<std::string_view, 23> kNames = {"ok",
                                                     "invalid_argument",
                                                     "unsupported_value",
                                                     "io",
                                                     "no_space",
                                                     "not_found",
                                                     "permission",
                                                     "damaged",
                                                     "mismatch",
                                                     "missing_key",
                                                     "newer_format",
                                                     "closed",
                                                     "wrong_process",
                                                     "out_of_memory",
                                                     "busy_elsewhere",
                                                     "stalled",
                                                     "process_failed",
                                                     "outcome_unknown",
                                                     "aborted",
                                                     "changed_while_staging",
                                                     "hook_failed",
                                                     "internal",
                                                     "device_failed"};

std::string sentence(const std::string& operation, const std::string& path,
                     const std::string& cause) {
  std::string text = operation;
  if (!path.empty()) text += (text.empty() ? "" : " ") + path;
  if (!text.empty()) text += ": ";
  return text + cause;
}

ErrorCode code_of(int errno_value) {
  switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorCode::no_space;
    case ENOENT:
      return ErrorCode::not_found;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::permission;
    case ENOMEM:
      return ErrorCode::out_of_memory;
    default:
      return ErrorCode::io;
  }
}

}  // namespace

std::string_view to_string(ErrorCode code) noexcept {
  const auto index = static_cast<std::size_t>(code);
  return index < kNames.size() ? kNames[index] : std::string_view{"unknown"};
}

Error::Error(ErrorCode code, std::string operation, std::string path, std::string cause,
             int errno_value)
    : std::runtime_error(sentence(operation, path, cause)),
      code_(code),
      errno_value_(errno_value),
      operation_(std::move(operation)),
      path_(std::move(path)),
      cause_(std::move(cause)) {}

Error Error::from_errno(int errno_value, std::string operation, std::string path) {
  return Error(code_of(errno_value), std::move(operation), std::move(path),
               base::words_of_errno(errno_value), errno_value);
}

}  // namespace ckptring
