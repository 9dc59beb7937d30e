#include "os/affinity.h"

#include "os/own_thread.h"
#include "os/read_file.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <string>
#include <string_view>
#include <vector>

// OpenMP's, of whichever implementation the program has. Without one they are null.
extern "C" {
[[gnu::weak]] int omp_get_num_places();
[[gnu::weak]] int omp_get_place_num_procs(int place);
[[gnu::weak]] void omp_get_place_proc_ids(int place, int* ids);
}

namespace ckptring::os {
namespace {

/// When this library was loaded. A thread that is made before by another static's constructor finds
/// none, and keeps its maker's.
const Processors at_load = Processors::of_this_thread();

/// Where one list, like "0-3,8", begins with a range: its ends, and the rest of the list.
bool take_range(std::string_view& list, unsigned& first, unsigned& last) {
  const char* const end = list.data() + list.size();
  auto [at, error] = std::from_chars(list.data(), end, first);
  if (error != std::errc{}) return false;
  last = first;
  if (at != end && *at == '-') {
    const auto [behind, second_error] = std::from_chars(at + 1, end, last);
    if (second_error != std::errc{}) return false;
    at = behind;
  }
  if (at != end && *at == ',') ++at;
  list = {at, static_cast<std::size_t>(end - at)};
  return true;
}

/// Whether all of them are threads of one core. A lone one is, wherever the system says nothing.
bool of_one_core(const Processors& processors) {
  if (processors.count() < 2) return true;
  unsigned one = 0;
  while (!processors.has(one)) ++one;
  const std::string siblings = read_file("/sys/devices/system/cpu/cpu" + std::to_string(one) +
                                         "/topology/thread_siblings_list")
                                   .value_or("");
  Processors core;
  std::string_view list = siblings;
  for (unsigned first = 0, last = 0; take_range(list, first, last);) {
    for (unsigned sibling = first; sibling <= std::min(last, Processors::kMost); ++sibling) {
      core.add(sibling);
    }
  }
  return (processors | core) == core;
}

bool has_openmp() noexcept {
  return omp_get_num_places != nullptr && omp_get_place_num_procs != nullptr &&
         omp_get_place_proc_ids != nullptr;
}

/// What OpenMP pins its threads to. It has looked at the process before it pinned the first one.
Processors of_openmp() {
  Processors all;
  if (!has_openmp()) return all;
  for (int place = 0; place < omp_get_num_places(); ++place) {
    const int count = omp_get_place_num_procs(place);
    std::vector<int> ids(static_cast<std::size_t>(std::max(count, 0)));
    if (!ids.empty()) omp_get_place_proc_ids(place, ids.data());
    for (const int id : ids) all.add(static_cast<unsigned>(id));
  }
  return all;
}

}  // namespace

Processors Processors::of_this_thread() noexcept {
  Processors found;
  // Not the C library's function, whose type ends at 1,024.
  if (::syscall(SYS_sched_getaffinity, 0, sizeof found.words_, found.words_.data()) < 0) return {};
  return found;
}

Processors Processors::for_own_thread() {
  const Processors makers = of_this_thread();
  // One of ours got what there is.
  if (is_own_thread() || makers.count() == 0) return makers;
  const Processors known = makers | at_load;
  if (known == makers && !has_openmp()) return makers;
  return of_one_core(makers) ? known | of_openmp() : makers;
}

void Processors::use() const noexcept {
  if (count() == 0) return;
  // Refused: it stays where its maker is.
  (void)::syscall(SYS_sched_setaffinity, 0, sizeof words_, words_.data());
}

void Processors::add(unsigned processor) noexcept {
  if (processor < kMost) words_[processor / kWordBits] |= Word{1} << processor % kWordBits;
}

bool Processors::has(unsigned processor) const noexcept {
  return processor < kMost && (words_[processor / kWordBits] >> processor % kWordBits & 1) != 0;
}

unsigned Processors::count() const noexcept {
  unsigned count = 0;
  for (const Word word : words_) count += static_cast<unsigned>(std::popcount(word));
  return count;
}

Processors operator|(Processors left, const Processors& right) noexcept {
  for (std::size_t i = 0; i < left.words_.size(); ++i) left.words_[i] |= right.words_[i];
  return left;
}

}  // namespace ckptring::os
