// What the machine itself allows: the least that staging and writing can cost.
#pragma once

#include "save/checkpointers.h"
#include "save/contestant.h"

namespace bench {

/// memcpy of the tensors into populated memory, and a walk over their metadata.
class PlainCopy : public Contestant {
 public:
  explicit PlainCopy(const Setting& setting);
  RunFigures run(const Effort& effort) override;

 private:
  const Setting& setting_;
};

/// See `write_bare`.
class BareWriter : public Contestant {
 public:
  explicit BareWriter(const Setting& setting);
  RunFigures run(const Effort& effort) override;

 private:
  const Setting& setting_;
};

/// See `fio_write_rate`.
class Fio : public Contestant {
 public:
  explicit Fio(const Setting& setting);
  RunFigures run(const Effort& effort) override;

 private:
  const Setting& setting_;
};

}  // namespace bench
