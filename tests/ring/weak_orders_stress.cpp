// One run of the ring's own code under the thread sanitizer, with the order named on the command
// line taken away: weak_orders_stress {production | EDGE}.
//
// Producer, consumer and supervisor poll and never sleep: flags and bells would order what the
// edge under test has to order. Nobody waits for more than the edges say, either: the records are
// given back by FINISH alone.
#include "base/align.h"
#include "ring/consumer_definitions.h"
#include "ring/producer_definitions.h"
#include "ring/progress_of.h"
#include "ring/ring_memory.h"

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>

namespace ckptring::ring::test {
namespace {

constexpr std::uint64_t kSaves = 40;

std::byte byte_of(std::uint64_t save, std::uint64_t offset) {
  return static_cast<std::byte>(save * 31 + offset / 64);
}

/// Stages saves of one block, then two, then more than the ring holds.
template <class Orders>
void produce(const RingMemory& ring) {
  BasicProducer<Orders> producer(ring.view(), ring.bells());
  for (std::uint64_t save = 1; save <= kSaves; ++save) {
    Description description{};
    description.total_bytes = (save % 7 + 1) * kBlock - 5;
    description.plan_bytes = 64;
    while (!producer.can_open(description.plan_bytes)) std::this_thread::yield();
    producer.open(description, [&](std::span<std::byte> plan) {
      std::memset(plan.data(), static_cast<int>(save), plan.size());
    });
    while (!producer.all_claimed()) {
      if (auto claim = producer.try_claim()) {
        const std::span<std::byte> bytes = claim->bytes();
        std::memset(bytes.data(), static_cast<int>(byte_of(save, claim->file_offset())),
                    bytes.size());
        claim->publish();
      } else {
        std::this_thread::yield();
      }
    }
    producer.seal();
  }
}

/// @return whether everything that was read belonged there
template <class Orders>
bool consume(const RingMemory& ring) {
  BasicConsumer<Orders> consumer(ring.view(), ring.bells());
  bool right = true;
  for (std::uint64_t ended = 0; ended < kSaves;) {
    const auto save = consumer.next_save();
    if (!save) {
      std::this_thread::yield();
      continue;
    }
    consumer.outcome(*save) = {};
    consumer.set_progress(*save, Progress::open);
    for (;;) {
      if (const auto block = consumer.try_take(*save)) {
        for (std::uint64_t i = 0; i < block->size; ++i) {
          right = right && block->memory[i] == byte_of(*save, block->file_offset);
        }
        consumer.complete(block->position);
        continue;
      }
      const IntentView wanted = consumer.intent(*save);
      if (wanted.intent == Intent::sealed && consumer.tail() >= wanted.end_position) break;
      std::this_thread::yield();
    }
    for (const std::byte entry : consumer.plan_of(*save)) {
      right = right && entry == static_cast<std::byte>(*save);
    }
    consumer.outcome(*save).drain_began_ns = *save;
    consumer.set_progress(*save, Progress::committed);
    ended = *save;
  }
  (void)consumer.next_save();  // finishes the last one
  return right;
}

template <class Orders>
bool supervise(const RingMemory& ring) {
  bool right = true;
  for (std::uint64_t save = 1; save <= kSaves; ++save) {
    const Record& record = ring.view().record(save);
    while (!is_terminal(progress_of<Orders>(record, save))) std::this_thread::yield();
    right = right && record.outcome.drain_began_ns == save;
  }
  return right;
}

template <class Orders>
bool stress() {
  bool right = true;
  {
    // Few slots, records and tables, all used again and again.
    const RingMemory ring({kBlock, 3, 2, 256});
    std::thread producer([&] { produce<Orders>(ring); });
    right = consume<Orders>(ring) && right;
    producer.join();
  }
  {
    // A record for each save, so that outcomes stay until they are read.
    const RingMemory ring({kBlock, 3, kSaves + 1, 64 * kSaves});
    std::thread producer([&] { produce<Orders>(ring); });
    bool saw_right = true;
    std::thread supervisor([&] { saw_right = supervise<Orders>(ring); });
    right = consume<Orders>(ring) && right;
    producer.join();
    supervisor.join();
    right = right && saw_right;
  }
  return right;
}

// One twin of the production code for each end of each edge.
#define CKPTRING_TWIN(EDGE)                                              \
  struct Without_##EDGE : Orders {                                       \
    static constexpr std::memory_order EDGE = std::memory_order_relaxed; \
  }
CKPTRING_TWIN(publish_store);
CKPTRING_TWIN(publish_load);
CKPTRING_TWIN(release_store);
CKPTRING_TWIN(release_load);
CKPTRING_TWIN(intent_store);
CKPTRING_TWIN(intent_load);
CKPTRING_TWIN(outcome_store);
CKPTRING_TWIN(outcome_load);
CKPTRING_TWIN(finish_store);
CKPTRING_TWIN(finish_load);
#undef CKPTRING_TWIN

const std::map<std::string, bool (*)()> kTwins{
    {"production", stress<Orders>},
    {"publish_store", stress<Without_publish_store>},
    {"publish_load", stress<Without_publish_load>},
    {"release_store", stress<Without_release_store>},
    {"release_load", stress<Without_release_load>},
    {"intent_store", stress<Without_intent_store>},
    {"intent_load", stress<Without_intent_load>},
    {"outcome_store", stress<Without_outcome_store>},
    {"outcome_load", stress<Without_outcome_load>},
    {"finish_store", stress<Without_finish_store>},
    {"finish_load", stress<Without_finish_load>},
};

}  // namespace
}  // namespace ckptring::ring::test

int main(int argc, char** argv) {
  using ckptring::ring::test::kTwins;
  const auto twin = argc == 2 ? kTwins.find(argv[1]) : kTwins.end();
  if (twin == kTwins.end()) {
    (void)std::fprintf(stderr, "usage: weak_orders_stress {production | EDGE}\n");
    return 64;
  }
  return twin->second() ? 0 : 1;
}
