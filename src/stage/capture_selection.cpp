#include "stage/capture_selection.h"

#include "base/mebibytes.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <iterator>
#include <utility>

namespace ckptring::stage {
namespace {

/// What may be captured at one place.
struct Candidates {
  int place;
  std::vector<std::uint32_t> declared;
  std::uint64_t declared_bytes = 0;
  std::vector<std::uint32_t> small;
  std::uint64_t small_bytes = 0;
};

class AllCandidates {
 public:
  Candidates& at(int place) {
    // One after the other is mostly at the same place.
    if (last_ < all_.size() && all_[last_].place == place) return all_[last_];
    const auto found = std::ranges::find(all_, place, &Candidates::place);
    last_ = static_cast<std::size_t>(found - all_.begin());
    if (found == all_.end()) all_.push_back({.place = place, .declared = {}, .small = {}});
    return all_[last_];
  }
  [[nodiscard]] std::vector<Candidates>& all() noexcept { return all_; }

 private:
  std::vector<Candidates> all_;
  std::size_t last_ = 0;
};

/// The smallest of `small`, until `limit`.
std::vector<std::uint32_t> smallest(std::span<const std::uint32_t> small,
                                    std::span<const Source> sources, std::uint64_t limit) {
  // Sorting all of them would cost more than copying them: whole classes of sizes go in, and only
  // the one that does not fit is sorted.
  constexpr std::size_t kClasses = std::bit_width(kSmallStorageBytes) + 1;
  std::array<std::uint64_t, kClasses> bytes_of_class{};
  const auto class_of = [&](std::uint32_t source) {
    return static_cast<std::size_t>(std::bit_width(sources[source].size));
  };
  for (const std::uint32_t source : small) bytes_of_class[class_of(source)] += sources[source].size;
  std::size_t last_class = 0;
  for (; last_class < kClasses && bytes_of_class[last_class] <= limit; ++last_class) {
    limit -= bytes_of_class[last_class];
  }

  std::vector<std::uint32_t> chosen;
  std::vector<std::uint32_t> last;
  for (const std::uint32_t source : small) {
    if (class_of(source) < last_class) chosen.push_back(source);
    if (class_of(source) == last_class) last.push_back(source);
  }
  std::ranges::stable_sort(last, {}, [&](std::uint32_t source) { return sources[source].size; });
  for (const std::uint32_t source : last) {
    if (sources[source].size > limit) break;
    limit -= sources[source].size;
    chosen.push_back(source);
  }
  std::ranges::sort(chosen);
  return chosen;
}

}  // namespace

std::vector<CaptureAt> select_captured(
    std::span<const Source> sources, const CaptureLimits& limits, const std::string& path,
    const std::function<std::string(std::uint32_t source)>& name_of) {
  AllCandidates candidates;
  for (std::uint32_t i = 0; i < sources.size(); ++i) {
    const Source& source = sources[i];
    if (source.size == 0) continue;
    if (source.is_volatile) {
      Candidates& here = candidates.at(source.place);
      here.declared.push_back(i);
      here.declared_bytes += source.size;
      if (here.declared_bytes > limits.volatile_bytes) {
        throw Error(
            ErrorCode::unsupported_value, fmt::format("capture key {} for", name_of(i)), path,
            fmt::format("with it, tensors that are declared volatile (buffers of modules) take {}, "
                        "and capture_volatile_bytes allows {}: raise it, or collect without "
                        "declaring and wait for `staged` before they change",
                        base::mib(here.declared_bytes), base::mib(limits.volatile_bytes)));
      }
    } else if (source.size <= kSmallStorageBytes) {
      Candidates& here = candidates.at(source.place);
      here.small.push_back(i);
      here.small_bytes += source.size;
    }
  }

  std::vector<CaptureAt> selected;
  for (Candidates& here : candidates.all()) {
    if (here.small_bytes > limits.small_bytes) {
      here.small = smallest(here.small, sources, limits.small_bytes);
    }
    CaptureAt captured{.place = here.place, .sources = {}};
    captured.sources.reserve(here.declared.size() + here.small.size());
    std::ranges::merge(here.declared, here.small, std::back_inserter(captured.sources));
    for (const std::uint32_t source : captured.sources) captured.bytes += sources[source].size;
    if (!captured.sources.empty()) selected.push_back(std::move(captured));
  }
  return selected;
}

}  // namespace ckptring::stage
