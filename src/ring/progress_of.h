// What the trainer knows of a save's outcome.
#pragma once

#include "ring/layout.h"
#include "ring/orders.h"

#include <cstdint>

namespace ckptring::ring {

/// The consumer's word on a save; none if the record still tells of another one. Once it is
/// terminal the record's outcome may be read.
template <class Orders = ring::Orders>
[[nodiscard]] Progress progress_of(const Record& record, std::uint64_t save) noexcept {
  // OUTCOME; seq_cst for DOORBELL (called between flag and poll).
  const auto word = Word<Progress>::unpack(record.consumer_word.load(Orders::outcome_load));
  return word.save == save ? word.state : Progress::none;
}

}  // namespace ckptring::ring
