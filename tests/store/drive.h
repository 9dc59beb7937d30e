// Driving a sink through a save, as the draining side does.
#pragma once

#include "base/align.h"
#include "store/file_sink.h"
#include "store/save_sink.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>
#include <poll.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace ckptring::store::test {

/// Page-aligned memory, as a sink wants it.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size)
      : size_(size),
        data_(static_cast<std::byte*>(
                  std::aligned_alloc(4096, base::align_up(std::max<std::size_t>(size, 1), 4096))),
              &std::free) {
    // What lies behind the file's bytes must not get into the file.
    std::memset(data_.get(), 0xEE, base::align_up(std::max<std::size_t>(size, 1), 4096));
  }
  [[nodiscard]] std::byte* data() { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  std::unique_ptr<std::byte, decltype(&std::free)> data_;
};

inline std::vector<std::byte> random_bytes(std::size_t size, std::uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::size_t at = 0; at < size; at += 4) {
    const auto word = static_cast<std::uint32_t>(random());
    std::memcpy(bytes.data() + at, &word, std::min<std::size_t>(4, size - at));
  }
  return bytes;
}

inline void wait_for_completion(SaveSink& sink) {
  if (sink.completion_fd() < 0) return;
  ::pollfd entry{sink.completion_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&entry, 1, 30'000), 1) << "no write ended within 30 seconds";
}

/// Writes the blocks [first, last) of `bytes` and waits until all of them are on disk.
inline void write_blocks(SaveSink& sink, std::span<const std::byte> bytes, std::size_t block_bytes,
                         std::size_t first, std::size_t last) {
  std::vector<AlignedBytes> blocks;
  for (std::size_t block = first; block < last; ++block) {
    const std::size_t offset = block * block_bytes;
    const std::size_t size = std::min(block_bytes, bytes.size() - offset);
    std::memcpy(blocks.emplace_back(size).data(), bytes.data() + offset, size);
  }
  std::set<std::uint64_t> expected;
  std::vector<std::uint64_t> done;
  const auto reap = [&] {
    done.clear();
    sink.reap(done);
    for (const std::uint64_t token : done) {
      EXPECT_EQ(expected.erase(token), 1U) << "token " << token << " came back unasked";
    }
  };
  try {
    for (std::size_t block = first; block < last;) {
      if (sink.room() == 0) {
        wait_for_completion(sink);
        reap();
        continue;
      }
      AlignedBytes& memory = blocks[block - first];
      expected.insert(1000 + block);
      sink.submit({1000 + block, block * block_bytes, memory.data(), memory.size(),
                   base::align_up(memory.size(), 4096)});
      ++block;
    }
    for (reap(); !expected.empty(); reap()) wait_for_completion(sink);
  } catch (...) {
    // The memory goes away with this function, and writes may still be reading it.
    sink.abort();
    throw;
  }
}

inline std::size_t block_count(std::size_t bytes, std::size_t block_bytes) {
  return static_cast<std::size_t>(base::ceil_div(bytes, block_bytes));
}

inline const PhaseRecorder kIgnorePhases = [](CommitPhase, const std::string&) {};

/// A whole save of `bytes` from begin to commit.
inline CommitTimes save_all(SaveSink& sink, std::span<const std::byte> bytes,
                            std::size_t block_bytes, const PhaseRecorder& record = kIgnorePhases) {
  EXPECT_TRUE(sink.begin(Beginning::fresh));
  write_blocks(sink, bytes, block_bytes, 0, block_count(bytes.size(), block_bytes));
  return sink.commit(record);
}

/// What `action` throws; fails the test if it throws nothing.
template <class Action>
Error error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::ok, "", "", "");
}

}  // namespace ckptring::store::test
