#include "stage/samples.h"

#include "base/align.h"

#include <algorithm>
#include <cstring>

namespace ckptring::stage {
namespace {

constexpr std::uint64_t kMostOfOne = 8;
/// Beyond this there is one of each payload.
constexpr std::uint64_t kEnough = 2048;

/// splitmix64: as good as random, and the same for the same number.
std::uint64_t scramble(std::uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
  number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
  return number ^ (number >> 31);
}

}  // namespace

Samples::Samples(const plan::FilePlan& plan, std::span<const Source> sources,
                 const std::vector<bool>& left_out, std::uint64_t seed) {
  const auto is_looked_at = [&](const plan::Payload& payload) {
    return sources[payload.source].place == kHost && !left_out[payload.source];
  };
  const auto payloads = plan.payloads();
  const auto number = static_cast<std::uint64_t>(std::ranges::count_if(payloads, is_looked_at));
  if (number == 0) return;
  const std::uint64_t of_each = std::clamp<std::uint64_t>(kEnough / number, 1, kMostOfOne);
  samples_.reserve(static_cast<std::size_t>(number * of_each));
  std::vector<const std::byte*> from;
  from.reserve(samples_.capacity());
  for (const plan::Payload& payload : payloads) {
    if (!is_looked_at(payload)) continue;
    const std::uint64_t lines = base::ceil_div(payload.size, kLine);
    const std::uint64_t wanted = std::min(of_each, lines);
    for (std::uint64_t i = 0; i < wanted; ++i) {
      const std::uint64_t begin = i * lines / wanted;
      const std::uint64_t end = (i + 1) * lines / wanted;
      const std::uint64_t at =
          kLine * (begin + scramble(seed ^ scramble(payload.file_offset + i)) % (end - begin));
      samples_.push_back({payload.file_offset + at,
                          payload.source,
                          static_cast<std::uint32_t>(std::min(payload.size - at, kLine)),
                          {}});
      from.push_back(sources[payload.source].data + at);
      // All of them are asked for before the first is read: each is far away.
      __builtin_prefetch(from.back());
    }
  }
  for (std::size_t i = 0; i < samples_.size(); ++i) {
    std::memcpy(samples_[i].bytes.data(), from[i], samples_[i].size);
  }
}

std::optional<std::uint32_t> Samples::first_changed(std::uint64_t file_offset,
                                                    std::span<const std::byte> staged) const {
  const std::uint64_t end = file_offset + staged.size();
  auto sample = std::ranges::lower_bound(samples_, file_offset, {}, &Sample::file_offset);
  for (; sample != samples_.end() && sample->file_offset < end; ++sample) {
    const auto at = staged.subspan(static_cast<std::size_t>(sample->file_offset - file_offset));
    const std::size_t size = std::min<std::size_t>(sample->size, at.size());
    if (std::memcmp(at.data(), sample->bytes.data(), size) != 0) return sample->source;
  }
  return std::nullopt;
}

}  // namespace ckptring::stage
