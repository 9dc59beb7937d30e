// Logs one line of each level to stderr. For log_test.
#include "base/log.h"

int main() {
  const ckptring::base::LogContext log{0};
  log.error("line");
  log.warn("line");
  log.info("line");
  log.debug("line");
  return static_cast<int>(ckptring::log_level());
}
