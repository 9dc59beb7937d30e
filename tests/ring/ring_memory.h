// A ring in private memory, and hands to build any state in it that a process could leave behind.
#pragma once

#include "os/eventfd.h"
#include "os/poll.h"
#include "ring/segment.h"

#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <new>

namespace ckptring::ring::test {

inline constexpr std::uint64_t kBlock = 4096;
inline constexpr Geometry kSmall{kBlock, 4, 3, 256};

class RingMemory {
 public:
  explicit RingMemory(const Geometry& geometry = kSmall)
      : memory_(zeroed(geometry.total_bytes())),
        view_((SegmentView::format(memory_.get(), geometry, {}), memory_.get())),
        data_(os::make_eventfd()),
        space_(os::make_eventfd()),
        result_(os::make_eventfd()) {}

  [[nodiscard]] const SegmentView& view() const { return view_; }
  [[nodiscard]] Bells bells() const { return {data_.get(), space_.get(), result_.get()}; }

  /// A record as the producer leaves it. `end` counts only if sealed or aborted.
  void announce(std::uint64_t save, std::uint64_t first, std::uint64_t file_bytes, Intent intent,
                std::uint64_t end = UINT64_MAX) const {
    Record& record = view_.record(save);
    record.first_position = first;
    record.plan_position = 0;
    record.description = {};
    record.description.total_bytes = file_bytes;
    record.end_position.store(end);
    record.producer_word.store(Word<Intent>{save, intent}.packed());
  }
  void publish(std::uint64_t position, bool voided = false) const {
    Slot& slot = view_.slot(position);
    slot.voided = voided ? 1 : 0;
    slot.published.store(position + 1);
  }
  void publish_all(std::uint64_t from, std::uint64_t to) const {
    for (std::uint64_t position = from; position < to; ++position) publish(position);
  }
  void set_consumer_word(std::uint64_t save, Progress progress) const {
    view_.record(save).consumer_word.store(Word<Progress>{save, progress}.packed());
  }
  void set_tail(std::uint64_t tail) const { view_.consumer().tail.store(tail); }
  void set_finished(std::uint64_t save) const { view_.consumer().finished_saves.store(save); }

  [[nodiscard]] Word<Intent> producer_word(std::uint64_t save) const {
    return Word<Intent>::unpack(view_.record(save).producer_word.load());
  }
  [[nodiscard]] Word<Progress> consumer_word(std::uint64_t save) const {
    return Word<Progress>::unpack(view_.record(save).consumer_word.load());
  }
  [[nodiscard]] std::uint64_t tail() const { return view_.consumer().tail.load(); }
  [[nodiscard]] std::uint64_t finished() const { return view_.consumer().finished_saves.load(); }

 private:
  struct Unmap {
    std::size_t bytes;
    void operator()(std::byte* memory) const { (void)::munmap(memory, bytes); }
  };
  /// Zeroed, page-aligned, and paid for only where it is touched.
  static std::unique_ptr<std::byte, Unmap> zeroed(std::uint64_t bytes) {
    void* const memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return {static_cast<std::byte*>(memory), Unmap{bytes}};
  }

  std::unique_ptr<std::byte, Unmap> memory_;
  SegmentView view_;
  os::UniqueFd data_;
  os::UniqueFd space_;
  os::UniqueFd result_;
};

inline Description file_of(std::uint64_t bytes, std::uint64_t plan_bytes = 0) {
  Description description{};
  description.total_bytes = bytes;
  description.plan_bytes = plan_bytes;
  return description;
}

inline bool rung(int bell) { return os::is_ready(bell); }

}  // namespace ckptring::ring::test
