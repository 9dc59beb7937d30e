// What the machine itself allows: the least that staging and writing can cost.
#pragma once

#include "save/checkpointers.h"
#include "save/run_figures.h"

namespace bench {

/// memcpy of the tensors into populated memory, and a walk over their metadata.
class PlainCopy : public SaveContestant {
 public:
  explicit PlainCopy(const Setting& setting);
  RunFigures run(int round) override;

 private:
  const Setting& setting_;
};

/// See `write_bare`.
class BareWriter : public SaveContestant {
 public:
  explicit BareWriter(const Setting& setting);
  RunFigures run(int round) override;

 private:
  const Setting& setting_;
};

/// See `fio_write_rate`.
class Fio : public SaveContestant {
 public:
  explicit Fio(const Setting& setting);
  RunFigures run(int round) override;

 private:
  const Setting& setting_;
};

}  // namespace bench
