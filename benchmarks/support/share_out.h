// Work in pieces, shared out to a few threads: how a baseline uses as many as what it is beside.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace bench {

/// Calls `work(piece)` for each piece from 0 to `pieces` - 1 in one of `threads` threads, the
/// caller's included. `work` must not throw.
template <class Work>
void share_out(std::size_t pieces, unsigned threads, const Work& work) {
  std::atomic<std::size_t> next{0};
  const auto take = [&] {
    // Only shares out; joining the threads orders what they did.
    for (std::size_t i = 0; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces;) work(i);
  };
  std::vector<std::jthread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(take);
  take();
}

}  // namespace bench
