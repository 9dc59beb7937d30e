#include "output.h"

#include <ckptring/error.h>

#include <cerrno>
#include <cstdio>

namespace ckptring::command {

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error::from_errno(errno, "write to", "the standard output");
  }
}

}  // namespace ckptring::command
