#include "store/temporary_name.h"

#include "store/file_system.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <cstdint>

namespace ckptring::store {
namespace {

constexpr std::string_view kFinalPrefix = "checkpoint_";
constexpr std::string_view kFinalSuffix = ".pt";
constexpr std::string_view kTemporarySuffix = ".tmp";
constexpr std::size_t kIdBytes = 16;
/// Around the final name in a temporary's: the dots, the digits and the suffix.
constexpr std::size_t kAround = 1 + 1 + 2 * kIdBytes + kTemporarySuffix.size();

bool is_lower_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

}  // namespace

std::string final_name(int rank) { return fmt::format("{}{}{}", kFinalPrefix, rank, kFinalSuffix); }

std::optional<int> rank_of_final_name(std::string_view name) {
  if (!name.starts_with(kFinalPrefix) || !name.ends_with(kFinalSuffix) ||
      name.size() <= kFinalPrefix.size() + kFinalSuffix.size()) {
    return std::nullopt;
  }
  const std::string_view digits =
      name.substr(kFinalPrefix.size(), name.size() - kFinalPrefix.size() - kFinalSuffix.size());
  int rank = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  // One spelling per rank: "checkpoint_00.pt" is somebody else's file.
  if (error != std::errc{} || end != digits.data() + digits.size() || rank < 0 ||
      (digits.size() > 1 && digits.front() == '0')) {
    return std::nullopt;
  }
  return rank;
}

std::optional<std::string> file_name_problem(std::string_view name) {
  if (name.empty()) return "it is empty";
  if (name.starts_with('.')) return "it is hidden";
  if (name.find('/') != std::string_view::npos) return "it has a slash";
  if (name.find('\0') != std::string_view::npos) return "it has a NUL";
  if (name.size() > NAME_MAX - kAround) {
    return fmt::format("it is longer than {} bytes", NAME_MAX - kAround);
  }
  return std::nullopt;
}

std::string new_temporary_name(std::string_view final_name) {
  std::array<std::uint8_t, kIdBytes> id{};
  // Up to 256 bytes are never cut short once the pool is ready.
  const ssize_t got = uninterrupted([&] { return ::getrandom(id.data(), id.size(), 0); });
  if (got != static_cast<ssize_t>(id.size())) {
    throw Error::from_errno(got < 0 ? errno : EIO, "choose a temporary name", "");
  }
  return fmt::format(".{}.{:02x}{}", final_name, fmt::join(id, ""), kTemporarySuffix);
}

std::optional<std::string_view> final_name_of_temporary(std::string_view name) {
  constexpr std::size_t kTail = 1 + 2 * kIdBytes + kTemporarySuffix.size();
  if (!name.starts_with('.') || name.size() <= 1 + kTail) return std::nullopt;
  const std::string_view tail = name.substr(name.size() - kTail);
  const std::string_view id = tail.substr(1, 2 * kIdBytes);
  if (tail.front() != '.' || !tail.ends_with(kTemporarySuffix) ||
      !std::all_of(id.begin(), id.end(), is_lower_hex)) {
    return std::nullopt;
  }
  const std::string_view final = name.substr(1, name.size() - 1 - kTail);
  if (file_name_problem(final)) return std::nullopt;
  return final;
}

}  // namespace ckptring::store
