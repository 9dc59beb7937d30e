// A drain loop in miniature. It goes through the same states as the real one, writes blocks in any
// order, checks everything that it reads, and can be cut off between any two steps.
#pragma once

#include "base/align.h"
#include "ring/consumer.h"
#include "ring/producer.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace ckptring::ring::test {

/// What stands at a place of a save's file. Two saves, and two places of one, differ.
inline std::byte byte_at(std::uint64_t save, std::uint64_t offset) {
  std::uint64_t x = (save << 40 ^ offset >> 3) + 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return static_cast<std::byte>(x >> (8 * (offset & 7)));
}

inline std::vector<std::byte> contents_of(std::uint64_t save, std::uint64_t offset,
                                          std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = byte_at(save, offset + i);
  return bytes;
}

/// Tables of a test's save: a constant for each block by the producer, a ledger by the consumer.
struct Tables {
  std::span<std::uint64_t> constants;
  std::span<std::uint64_t> ledger;

  static std::uint64_t bytes_for(std::uint64_t blocks) {
    return 2 * blocks * sizeof(std::uint64_t);
  }
  explicit Tables(std::span<std::byte> memory)
      : constants(reinterpret_cast<std::uint64_t*>(memory.data()),
                  memory.size() / sizeof(std::uint64_t) / 2),
        ledger(constants.data() + constants.size(), constants.size()) {}
  static std::uint64_t constant(std::uint64_t save, std::uint64_t block) {
    return save * 1'000'003 + block;
  }
  static std::uint64_t entry(std::span<const std::byte> bytes) {
    std::uint64_t sum = 1;
    for (const std::byte byte : bytes) sum = sum * 31 + static_cast<std::uint64_t>(byte);
    return sum | 1;  // never 0, which means "not computed"
  }
};

inline Description stress_file(std::uint64_t blocks, std::uint64_t bytes) {
  Description description{};
  description.total_bytes = bytes;
  description.plan_bytes = Tables::bytes_for(blocks);
  return description;
}

/// Where a mini drain puts its files.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual void begin(std::uint64_t save) = 0;
  virtual void write(std::uint64_t save, std::uint64_t offset,
                     std::span<const std::byte> bytes) = 0;
  virtual void commit(std::uint64_t save) = 0;  ///< may find that it was done already
  virtual void undo(std::uint64_t save) = 0;    ///< likewise
};

class MiniDrain {
 public:
  /// These saves fail on the consumer's side, half-way through.
  static bool fails(std::uint64_t save) { return save % 7 == 3; }

  /// @param step called between any two stores; may throw, which ends everything there
  MiniDrain(SegmentView segment, Bells bells, Disk& disk, int trainer, std::uint64_t seed,
            std::function<void()> step)
      : segment_(segment),
        consumer_(segment, bells),
        disk_(disk),
        trainer_(trainer),
        random_(seed),
        step_(std::move(step)) {}

  /// Until shutdown is asked for and nothing is left to do, or the trainer is gone.
  void run(std::uint32_t incarnation) {
    consumer_.start(incarnation);
    step_();
    for (;;) {
      if (const auto save = consumer_.next_save()) {
        step_();
        drain(*save);
        continue;
      }
      if (consumer_.shutdown_requested()) return;
      sleep([this] { return consumer_.next_save() || consumer_.shutdown_requested(); });
    }
  }

 private:
  static constexpr std::size_t kDepth = 3;

  void check(bool holds, const char* what, std::uint64_t save) const {
    if (!holds) throw std::logic_error(std::string(what) + " of save " + std::to_string(save));
  }

  void check_block(const TakenBlock& block, std::uint64_t save) const {
    const auto wanted = contents_of(save, block.file_offset, static_cast<std::size_t>(block.size));
    check(std::memcmp(wanted.data(), block.memory.data(), wanted.size()) == 0, "a block", save);
  }

  void drain(std::uint64_t save) {
    if (is_terminal(consumer_.progress(save))) {
      discard(save);
      return;
    }
    if (consumer_.progress(save) == Progress::none) {
      consumer_.outcome(save) = {};
      consumer_.outcome(save).drain_began_ns = save;
      consumer_.set_progress(save, Progress::open);
      step_();
    }
    const Description& description = consumer_.record(save).description;
    const std::uint64_t block_bytes = segment_.geometry().block_bytes;
    const Tables tables(consumer_.plan_of(save));
    check(tables.constants.size() == base::ceil_div(description.total_bytes, block_bytes),
          "the size of the tables", save);
    for (std::size_t i = 0; i < tables.constants.size(); ++i) {
      check(tables.constants[i] == Tables::constant(save, i), "a table", save);
    }
    if (consumer_.progress(save) == Progress::renaming) {
      rename(save);  // the word never goes back
      return;
    }
    disk_.begin(save);
    std::vector<TakenBlock> in_flight;
    for (;;) {
      while (in_flight.size() < kDepth) {
        const auto block = consumer_.try_take(save);
        if (!block) break;
        if (block->voided) {
          consumer_.complete(block->position);
          step_();
          continue;
        }
        check_block(*block, save);
        in_flight.push_back(*block);
      }
      if (!in_flight.empty()) {
        const std::size_t next = random_() % in_flight.size();
        const TakenBlock block = in_flight[next];
        in_flight.erase(in_flight.begin() + static_cast<std::ptrdiff_t>(next));
        if (fails(save) && 2 * (block.file_offset + block.size) > description.total_bytes) {
          fail(save);
          return;
        }
        check_block(block, save);
        const auto bytes = block.memory.first(static_cast<std::size_t>(block.size));
        disk_.write(save, block.file_offset, bytes);
        step_();
        std::uint64_t& entry = tables.ledger[block.file_offset / block_bytes];
        check(entry == 0 || entry == Tables::entry(bytes), "a ledger entry", save);
        entry = Tables::entry(bytes);
        step_();
        consumer_.complete(block.position);
        step_();
        continue;
      }
      const IntentView wanted = consumer_.intent(save);
      if (wanted.intent == Intent::aborted) {
        disk_.undo(save);
        step_();
        consumer_.release_through(wanted.end_position);
        step_();
        consumer_.outcome(save).error_code = 18;
        consumer_.set_progress(save, Progress::aborted);
        step_();
        return;
      }
      if (wanted.intent == Intent::sealed && consumer_.tail() >= wanted.end_position) {
        for (std::size_t i = 0; i < tables.ledger.size(); ++i) {
          const auto bytes =
              contents_of(save, i * block_bytes,
                          static_cast<std::size_t>(
                              std::min(block_bytes, description.total_bytes - i * block_bytes)));
          check(tables.ledger[i] == Tables::entry(bytes), "the ledger", save);
        }
        commit(save);
        return;
      }
      sleep([&] {
        return consumer_.can_take(save) || consumer_.intent(save).intent != wanted.intent;
      });
    }
  }

  void commit(std::uint64_t save) {
    consumer_.set_progress(save, Progress::syncing);
    step_();
    rename(save);
  }

  void rename(std::uint64_t save) {
    consumer_.set_progress(save, Progress::renaming);
    step_();
    disk_.commit(save);
    step_();
    consumer_.outcome(save).error_code = 0;
    consumer_.set_progress(save, Progress::committed);
    step_();
  }

  void fail(std::uint64_t save) {
    disk_.undo(save);
    step_();
    consumer_.outcome(save).error_code = 3;
    consumer_.set_progress(save, Progress::failed);
    step_();
    discard(save);
  }

  void discard(std::uint64_t save) {
    while (consumer_.intent(save).intent == Intent::staging) {
      sleep([&] { return consumer_.intent(save).intent != Intent::staging; });
    }
    consumer_.release_through(consumer_.intent(save).end_position);
    step_();
  }

  template <class Moved>
  void sleep(Moved&& moved) {
    std::array<os::Waitable, 1> others{os::Waitable{trainer_}};
    consumer_.sleep(std::forward<Moved>(moved), others, os::Deadline::never());
    if (others[0].ready) throw std::runtime_error("the trainer is gone");
  }

  SegmentView segment_;
  Consumer consumer_;
  Disk& disk_;
  int trainer_;
  std::mt19937_64 random_;
  std::function<void()> step_;
};

}  // namespace ckptring::ring::test
