#include "torch/fill_records.h"

#include "os/thread_count.h"
#include "store/read_target.h"
#include "store/record_reads.h"
#include "torch/device_targets.h"
#include "torch/file_layout.h"
#include "torch/overlaps.h"
#include "torch/record_reader.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::torch_state {
namespace {

/// In the order of the record; of the same bytes, in the order of memory.
void sort_by_place(std::vector<Fill>& fills) {
  std::ranges::sort(fills, {}, [](const Fill& fill) {
    const std::uint64_t begin = byte_range(fill.view).first;
    return std::pair(begin, has_addresses(fill.target) ? memory_range(fill.target).first : 0);
  });
}

/// Whether the fills are of the same bytes, and for the same memory: of a tensor that the state has
/// under several keys there is one for each. Both lie in memory as in the file.
bool are_twins(const Fill& a, const Fill& b) {
  return has_addresses(a.target) && has_addresses(b.target) &&
         byte_range(a.view) == byte_range(b.view) &&
         memory_range(a.target) == memory_range(b.target);
}

/// Whether each of the sorted fills is a row of bytes of its own, in the file as in memory that can
/// be reached, or the twin of the one before it.
bool are_plain(const std::vector<Fill>& fills, const DeviceTargets& devices) {
  const Fill* before = nullptr;
  return std::ranges::all_of(fills, [&](const Fill& fill) {
    const Fill* const last = std::exchange(before, &fill);
    const bool reached = fill.target.is_cpu() || devices.reach(fill.target.device());
    if (!reached || !same_layout(fill.target, fill.view)) return false;
    return last == nullptr || byte_range(fill.view).first >= byte_range(last->view).second ||
           are_twins(*last, fill);
  });
}

/// The parts of many records that are read together, and what they are for.
class Parts {
 public:
  /// `devices` outlives this.
  explicit Parts(const DeviceTargets& devices) : devices_(devices) {}

  /// All of a record, only to be checked.
  void add_whole(const RecordFills& record) { add(record, 0, record.record->size, {}); }

  /// What the plain fills of a record want; with `check` also what lies between.
  void add_fills(RecordFills& record, bool check) {
    std::uint64_t reached = 0;
    for (auto fill = record.fills.begin(); fill != record.fills.end();) {
      const auto twins_end = std::find_if(fill + 1, record.fills.end(), [&](const Fill& other) {
        return !are_twins(*fill, other);
      });
      const auto [begin, end] = byte_range(fill->view);
      if (check && begin > reached) add(record, reached, begin, {});
      add(record, begin, end, {fill, twins_end});
      reached = end;
      fill = twins_end;
    }
    if (check && reached < record.record->size) add(record, reached, record.record->size, {});
  }

  /// Marks what was touched, and calls `failed(fill, error)` if reading failed.
  template <class Failed>
  void read(const store::RecordReads& reads, bool check, const Failed& failed) {
    const std::optional<store::ReadFailure> failure = reads.run(parts_, check);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (!parts_[i].touched) continue;
      for (Fill& fill : purposes_[i].fills) fill.touch();
    }
    if (!failure) return;
    const Purpose& purpose = purposes_[failure->part];
    failed(purpose.fills.empty() ? purpose.record->fills.front() : purpose.fills.front(),
           failure->error);
  }

 private:
  struct Purpose {
    const RecordFills* record;
    std::span<Fill> fills;  ///< twins; none: to be checked
  };

  void add(const RecordFills& record, std::uint64_t begin, std::uint64_t end,
           std::span<Fill> fills) {
    store::ReadTarget* const target = fills.empty() ? nullptr : target_of(fills.front().target);
    parts_.push_back({.record = record.record, .begin = begin, .end = end, .target = target});
    purposes_.push_back({&record, fills});
  }

  store::ReadTarget* target_of(const at::Tensor& tensor) {
    if (tensor.is_cpu()) return &on_host_.emplace_back(memory_of(tensor));
    return on_devices_.emplace_back(devices_.make(tensor)).get();
  }

  const DeviceTargets& devices_;
  std::vector<store::ReadPart> parts_;
  std::vector<Purpose> purposes_;  ///< of each part
  std::deque<store::HostTarget> on_host_;
  std::vector<std::unique_ptr<store::ReadTarget>> on_devices_;
};

class Filler {
 public:
  Filler(const store::FileSource& source, const FillPlan& plan, std::vector<RecordFills>& records,
         const LoadOptions& options, const base::LogContext& log)
      : plan_(plan),
        records_(records),
        check_(options.verify_checksums),
        reads_(source, os::thread_count("LoadOptions::threads", options.threads, 1)),
        devices_(log),
        reader_(source, options.verify_checksums) {
    prepare_devices();
  }

  void check_all() {
    Parts whole(devices_);
    for (const RecordFills& record : records_) whole.add_whole(record);
    read(whole, true);
  }

  /// Before anything is changed: the file must have the same for the same memory. What was there
  /// to be compared only is gone then.
  void check_overlaps() {
    for (const Overlap& overlap : find_overlaps(records_)) {
      for (const Overlap::Part& part : overlap.parts) one_by_one_.insert(part.record);
      const auto found = contradiction_in(overlap);
      if (!found) continue;
      const std::string earlier =
          found->earlier != nullptr ? plan_.keys.path(found->earlier->key) : "";
      throw plan_.error(ErrorCode::mismatch, plan_.keys.path(found->fill->key),
                        fmt::format("in the state {}; nothing of the state was changed",
                                    found->words("the file", earlier)));
    }
    for (RecordFills& record : records_) std::erase_if(record.fills, &is_compared);
    std::erase_if(records_, [](const RecordFills& record) { return record.fills.empty(); });
  }

  void fill_all() {
    Parts plain(devices_);
    std::vector<RecordFills*> others;
    for (RecordFills& record : records_) {
      sort_by_place(record.fills);
      if (are_plain(record.fills, devices_) && !one_by_one_.contains(record.record)) {
        plain.add_fills(record, check_);
      } else {
        others.push_back(&record);
      }
    }
    read(plain, check_);
    for (RecordFills* record : others) fill(*record);
  }

 private:
  static bool is_compared(const Fill& fill) { return fill.compared; }

  std::optional<Contradiction> contradiction_in(const Overlap& overlap) {
    try {
      return contradiction(overlap, [&](RecordFills& record) { fill(record); });
    } catch (const std::bad_alloc&) {
      throw failed(overlap.front(), no_memory());
    }
  }

  void fill(RecordFills& record) {
    const auto at_hand = [&]() -> const Fill& {
      const Fill* const at = reader_.failed_at();
      return at != nullptr ? *at : record.fills.front();
    };
    try {
      reader_.fill(record);
    } catch (const Error& failure) {
      throw failed(at_hand(), failure);
    } catch (const std::bad_alloc&) {
      throw failed(at_hand(), no_memory());
    }
  }

  static Error no_memory() {
    return {ErrorCode::out_of_memory, "read", "", "there is no memory left for it"};
  }

  void prepare_devices() {
    std::map<int, const Fill*> first_on;
    for (const RecordFills& record : records_) {
      for (const Fill& fill : record.fills) {
        if (fill.target.is_cuda()) first_on.emplace(fill.target.device().index(), &fill);
      }
    }
    for (const auto& [device, first] : first_on) {
      try {
        devices_.prepare(device, reads_.windows());
      } catch (const Error& failure) {
        throw failed(*first, failure);
      }
    }
  }

  void read(Parts& parts, bool check) const {
    parts.read(reads_, check, [&](const Fill& at_hand, const std::exception_ptr& error) {
      try {
        std::rethrow_exception(error);
      } catch (const Error& failure) {
        throw failed(at_hand, failure);
      } catch (const std::bad_alloc&) {
        throw failed(at_hand, no_memory());
      }
    });
  }

  /// Names the key at hand and what is no longer as it was.
  [[nodiscard]] Error failed(const Fill& at_hand, const Error& failure) const {
    std::vector<std::string> overwritten;
    for (const RecordFills& record : records_) {
      for (const Fill& fill : record.fills) {
        if (fill.touched && !fill.fresh) overwritten.push_back(plan_.keys.path(fill.key));
      }
    }
    const std::string left =
        overwritten.empty() ? "nothing of the state was changed"
                            : fmt::format("already overwritten: {}", fmt::join(overwritten, ", "));
    const std::string key = plan_.keys.path(at_hand.key);
    switch (failure.code()) {
      case ErrorCode::device_failed:
      case ErrorCode::out_of_memory:
      case ErrorCode::invalid_argument:
      case ErrorCode::internal:
        return plan_.error(failure.code(), key,
                           fmt::format("{}: {}; {}", failure.operation(), failure.cause(), left));
      default:
        // What cannot be read is damaged, whatever the disk says.
        return plan_.error(ErrorCode::damaged, key, fmt::format("{}; {}", failure.cause(), left));
    }
  }

  const FillPlan& plan_;
  std::vector<RecordFills>& records_;
  bool check_;
  store::RecordReads reads_;
  DeviceTargets devices_;
  RecordReader reader_;
  std::set<const plan::Record*> one_by_one_;  ///< whose tensors lie where others lie, too
};

}  // namespace

void fill_records(const store::FileSource& source, const FillPlan& plan,
                  std::vector<RecordFills>& records, const LoadOptions& options,
                  const base::LogContext& log) {
  Filler filler(source, plan, records, options, log);
  if (options.verify_first) filler.check_all();
  filler.check_overlaps();
  filler.fill_all();
}

}  // namespace ckptring::torch_state
