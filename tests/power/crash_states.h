// What a power cut may leave of the operations that were recorded.
//
// At any instant an operation has not begun, is under way, or has ended. It is certain to be there
// after the cut if it ended as durable (RWF_DSYNC), or if a sync of the same file or directory
// began after its end and ended too. Everything else that had begun may be there or not, in any
// combination whatever its order: names one by one, file sizes, and data by sectors of 512 bytes.
// A rename may also be there by halves: the new name is set and the old one not yet gone, or the
// other way round.
//
// No file system forgets quite so freely. A save that withstands this does not rely on any one.
#pragma once

#include "power/recording_files.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string_view>

namespace ckptring::store::test {

inline constexpr std::uint64_t kSector = 512;

/// A state of the disk after the cut. [0] is the root.
class CrashState {
 public:
  explicit CrashState(std::vector<Node> nodes) : nodes_(std::move(nodes)) {}
  [[nodiscard]] const std::vector<Node>& nodes() const { return nodes_; }
  /// Null: there is nothing under this path, which is relative to the root.
  [[nodiscard]] const Node* find(std::string_view path) const {
    const Node* node = nodes_.data();
    while (!path.empty()) {
      const std::size_t slash = std::min(path.find('/'), path.size());
      const auto entry = node->names.find(std::string(path.substr(0, slash)));
      if (entry == node->names.end()) return nullptr;
      node = &nodes_[entry->second];
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return node;
  }

 private:
  std::vector<Node> nodes_;
};

class CrashStates {
 public:
  /// @param path of the finished file, relative to the root: what nobody can see under it is
  ///        enumerated less densely
  CrashStates(const Recording& recording, std::string path)
      : recording_(recording), path_(std::move(path)), start_(recording.nodes) {
    std::copy(recording.before.begin(), recording.before.end(), start_.begin());
  }

  /// Calls `look` with every state, and whether the save had been reported before the cut.
  void for_each(const std::function<void(const CrashState&, bool reported)>& look) {
    for (Instant now = 0; now <= recording_.end; ++now) cut_at(now, look);
  }

 private:
  using Kind = Operation::Kind;
  /// Which sectors of each uncertain operation on data are there; [0] alone for sizes.
  using Sectors = std::vector<std::vector<bool>>;

  static bool is_name(const Operation& operation) {
    return operation.kind == Kind::create || operation.kind == Kind::remove ||
           operation.kind == Kind::rename;
  }
  [[nodiscard]] bool certain(const Operation& operation, Instant now) const {
    if (operation.ended > now) return false;
    if (operation.durable_on_return) return true;
    return std::any_of(recording_.operations.begin(), recording_.operations.end(),
                       [&](const Operation& sync) {
                         return sync.kind == Kind::sync && sync.subject == operation.subject &&
                                sync.begun > operation.ended && sync.ended <= now;
                       });
  }

  void cut_at(Instant now, const std::function<void(const CrashState&, bool)>& look) {
    std::vector<const Operation*> begun;
    std::vector<std::size_t> names;  // the uncertain ones, as indices into `begun`
    std::vector<std::size_t> data;
    for (const Operation& operation : recording_.operations) {
      if (operation.kind == Kind::sync || operation.begun > now) continue;
      if (!certain(operation, now)) {
        (is_name(operation) ? names : data).push_back(begun.size());
      }
      begun.push_back(&operation);
    }
    const std::vector<Sectors> all_data = sector_choices(begun, data);
    const bool reported = now >= recording_.reported;

    // Every combination of names: an odometer with one wheel for each.
    std::vector<unsigned> wheel(names.size(), 0);
    for (bool more = true; more;) {
      std::vector<Node> named = start_;
      std::vector<unsigned> choice(begun.size(), kApplied);
      for (std::size_t i = 0; i < names.size(); ++i) choice[names[i]] = wheel[i];
      for (std::size_t i = 0; i < begun.size(); ++i) {
        if (is_name(*begun[i])) apply_name(named, *begun[i], choice[i]);
      }
      const bool visible = visible_changes(named, begun, data);
      const bool all_names =
          std::all_of(wheel.begin(), wheel.end(), [](unsigned which) { return which == kApplied; });
      for (const Sectors& sectors : all_data) {
        std::vector<Node> nodes = named;
        apply_data(nodes, begun, data, sectors);
        look(CrashState(std::move(nodes)), reported);
        // In a file that is hidden, or has no name at all, no reader can see the difference.
        if (!visible && !all_names) break;
      }
      more = false;
      for (std::size_t i = 0; i < names.size() && !more; ++i) {
        const unsigned choices = begun[names[i]]->kind == Kind::rename ? 4 : 2;
        wheel[i] = (wheel[i] + 1) % choices;
        more = wheel[i] != 0;
      }
    }
  }

  /// Whether the file that is seen under the final name is one whose data are uncertain.
  bool visible_changes(const std::vector<Node>& nodes, const std::vector<const Operation*>& begun,
                       const std::vector<std::size_t>& data) const {
    const CrashState state(nodes);
    const Node* const seen = state.find(path_);
    return std::any_of(data.begin(), data.end(),
                       [&](std::size_t i) { return &state.nodes()[begun[i]->subject] == seen; });
  }

  static constexpr unsigned kDropped = 0;
  static constexpr unsigned kApplied = 1;
  static constexpr unsigned kOldNameStays = 2;
  static constexpr unsigned kOldNameGoesFirst = 3;

  static void apply_name(std::vector<Node>& nodes, const Operation& operation, unsigned choice) {
    if (choice == kDropped) return;
    auto& names = nodes[operation.subject].names;
    switch (operation.kind) {
      case Kind::create:
        names[operation.name] = operation.child;
        return;
      case Kind::remove:
        names.erase(operation.name);
        return;
      default:
        if (choice != kOldNameStays) names.erase(operation.name);
        if (choice != kOldNameGoesFirst) names[operation.new_name] = operation.child;
    }
  }

  static void apply_data(std::vector<Node>& nodes, const std::vector<const Operation*>& begun,
                         const std::vector<std::size_t>& uncertain, const Sectors& sectors) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < begun.size(); ++i) {
      const Operation& operation = *begun[i];
      if (is_name(operation)) continue;
      const std::vector<bool>* present = nullptr;  // all
      if (next < uncertain.size() && uncertain[next] == i) present = &sectors[next++];
      auto& bytes = nodes[operation.subject].bytes;
      if (operation.kind != Kind::write) {
        if (present != nullptr && !present->front()) continue;
        if (operation.kind == Kind::truncate || bytes.size() < operation.size) {
          bytes.resize(operation.size);
        }
        continue;
      }
      for (std::uint64_t at = 0, sector = 0; at < operation.size; at += kSector, ++sector) {
        if (present != nullptr && !(*present)[sector]) continue;
        const std::uint64_t size = std::min(kSector, operation.size - at);
        const std::uint64_t end = operation.offset + at + size;
        if (bytes.size() < end) bytes.resize(end);
        std::memcpy(bytes.data() + operation.offset + at, operation.data.data() + at, size);
      }
    }
  }

  std::vector<Sectors> sector_choices(const std::vector<const Operation*>& begun,
                                      const std::vector<std::size_t>& data) {
    std::vector<std::size_t> counts;
    std::size_t total = 0;
    for (const std::size_t i : data) {
      const Operation& operation = *begun[i];
      counts.push_back(operation.kind == Kind::write ? (operation.size + kSector - 1) / kSector
                                                     : 1);
      total += counts.back();
    }
    std::vector<Sectors> choices;
    const auto whole = [&](auto&& present) {
      Sectors sectors;
      for (std::size_t i = 0; i < counts.size(); ++i) {
        sectors.emplace_back(counts[i], static_cast<bool>(present(i)));
      }
      return sectors;
    };
    const auto by_sector = [&](auto&& present) {
      Sectors sectors = whole([](std::size_t) { return false; });
      std::size_t number = 0;
      for (auto& operation : sectors) {
        for (auto&& sector : operation) sector = present(number++);
      }
      return sectors;
    };
    constexpr std::size_t kFew = 10;
    if (total <= kFew) {  // every combination of sectors
      for (std::size_t mask = 0; mask < std::size_t{1} << total; ++mask) {
        choices.push_back(by_sector([&](std::size_t i) { return (mask >> i & 1) != 0; }));
      }
      return choices;
    }
    // Whole operations: every combination of a few; of many, all that differ in little from none
    // or all, and samples.
    if (counts.size() <= kFew - 3) {
      for (std::size_t mask = 0; mask < std::size_t{1} << counts.size(); ++mask) {
        choices.push_back(whole([&](std::size_t i) { return (mask >> i & 1) != 0; }));
      }
    } else {
      choices.push_back(whole([](std::size_t) { return true; }));
      for (std::size_t one = 0; one < counts.size(); ++one) {
        choices.push_back(whole([&](std::size_t i) { return i == one; }));
        choices.push_back(whole([&](std::size_t i) { return i != one; }));
        choices.push_back(whole([&](std::size_t i) { return i < one; }));
      }
    }
    // Torn ones: each write cut at its first and last sector and in the middle, either way round.
    for (std::size_t torn = 0; torn < counts.size(); ++torn) {
      for (const std::size_t cut : {std::size_t{1}, counts[torn] / 2, counts[torn] - 1}) {
        for (const bool front : {true, false}) {
          if (cut == 0 || cut >= counts[torn]) continue;
          Sectors sectors = whole([](std::size_t) { return true; });
          for (std::size_t i = 0; i < counts[torn]; ++i) sectors[torn][i] = (i < cut) == front;
          choices.push_back(std::move(sectors));
        }
      }
    }
    for (int sample = 0; sample < 16; ++sample) {
      const unsigned of_eight = sample < 8 ? 4 : 7;
      choices.push_back(by_sector([&](std::size_t) { return random_() % 8 < of_eight; }));
    }
    return choices;
  }

  const Recording& recording_;
  std::string path_;
  std::vector<Node> start_;
  std::mt19937 random_{1};
};

}  // namespace ckptring::store::test
