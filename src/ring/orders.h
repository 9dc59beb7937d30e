// The memory orders of the ring's edges. The code of the ring is a template over them, with one
// instance in this library: what carries an edge can be taken away in a test, and nowhere else.
#pragma once

#include <atomic>

namespace ckptring::ring {

/// The orders of docs/RING.md. An edge by itself asks for release and acquire; whatever a sleeper
/// may wait for is sequentially consistent, as DOORBELL asks.
struct Orders {
  static constexpr std::memory_order publish_store = std::memory_order_seq_cst;
  static constexpr std::memory_order publish_load = std::memory_order_seq_cst;
  static constexpr std::memory_order release_store = std::memory_order_seq_cst;
  static constexpr std::memory_order release_load = std::memory_order_seq_cst;
  static constexpr std::memory_order intent_store = std::memory_order_seq_cst;
  static constexpr std::memory_order intent_load = std::memory_order_seq_cst;
  static constexpr std::memory_order outcome_store = std::memory_order_seq_cst;
  static constexpr std::memory_order outcome_load = std::memory_order_seq_cst;
  static constexpr std::memory_order finish_store = std::memory_order_seq_cst;
  static constexpr std::memory_order finish_load = std::memory_order_seq_cst;
};

}  // namespace ckptring::ring
