// Somebody who drains what is staged.
#pragma once

#include "ring/consumer.h"
#include "ring/ring_memory.h"
#include "stage/random_plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>
#include <utility>

namespace ckptring::stage::test {

/// Takes and releases the blocks of a save, in order, until `more` says no or it was aborted.
class Drainer {
 public:
  Drainer(const ring::test::RingMemory& ring, std::uint64_t save,
          std::function<bool(ring::Consumer&, std::uint64_t taken)> more)
      : consumer_(ring.view(), ring.bells()),
        save_(save),
        more_(std::move(more)),
        thread_([this] { run(); }) {}
  ~Drainer() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  Bytes file;  // after join

 private:
  static constexpr double kStuckSecs = 60;

  void run() {
    for (std::uint64_t taken = 0; more_(consumer_, taken); ++taken) {
      while (true) {
        if (const auto block = consumer_.try_take(save_)) {
          const auto bytes = block->memory.first(static_cast<std::size_t>(block->size));
          file.insert(file.end(), bytes.begin(), bytes.end());
          consumer_.complete(block->position);
          break;
        }
        if (aborted()) return;
        if (!consumer_.sleep([this] { return consumer_.can_take(save_) || aborted(); }, {},
                             os::Deadline::after(kStuckSecs))) {
          ADD_FAILURE() << "no block arrived";
          return;
        }
      }
    }
  }
  bool aborted() { return consumer_.intent(save_).intent == ring::Intent::aborted; }

  ring::Consumer consumer_;
  std::uint64_t save_;
  std::function<bool(ring::Consumer&, std::uint64_t)> more_;
  std::thread thread_;
};

}  // namespace ckptring::stage::test
