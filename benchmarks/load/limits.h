// What the machine itself allows: the least that loading can cost.
#pragma once

#include "load/run_figures.h"

#include <cstdint>
#include <string>

namespace bench {

/// What the limits are measured with; outlives them.
struct LimitSetting {
  std::string directory;         ///< for fio's own output
  std::string path;              ///< the file that this library loads
  std::uint64_t file_bytes = 0;  ///< its size
  std::uint64_t state_bytes = 0;
  unsigned threads = 1;
};

/// memcpy of as many bytes, from populated memory into populated memory.
class Memcpy : public LoadContestant {
 public:
  explicit Memcpy(const LimitSetting& setting);
  LoadRun run(int round) override;

 private:
  const LimitSetting& setting_;
};

/// The warm file, read into populated memory; nothing is looked at.
class WarmRead : public LoadContestant {
 public:
  explicit WarmRead(const LimitSetting& setting);
  LoadRun run(int round) override;

 private:
  const LimitSetting& setting_;
};

/// See `read_bare`.
class BareReader : public LoadContestant {
 public:
  explicit BareReader(const LimitSetting& setting);
  LoadRun run(int round) override;

 private:
  const LimitSetting& setting_;
};

/// See `fio_read_rate`.
class FioReader : public LoadContestant {
 public:
  explicit FioReader(const LimitSetting& setting);
  LoadRun run(int round) override;

 private:
  const LimitSetting& setting_;
};

}  // namespace bench
