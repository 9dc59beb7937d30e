// A state in plain memory.
#pragma once

#include <ckptring/saver.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

namespace ckptring::test {

struct PlainState {
  explicit PlainState(std::int64_t rows = 3, std::int64_t columns = 4)
      : sizes{rows, columns}, matrix(static_cast<std::size_t>(rows * columns)) {
    std::iota(matrix.begin(), matrix.end(), 1);
  }

  void operator()(StateRecorder& state) const {
    const std::array<std::int64_t, 2> strides{sizes[1], 1};
    const std::array<std::int64_t, 2> turned{sizes[1], sizes[0]};
    const std::array<std::int64_t, 2> turned_strides{1, sizes[1]};
    const auto storage =
        state.storage({.data = matrix.data(), .bytes = matrix.size() * sizeof(std::int32_t)});
    state.begin_dict();
    state.key("model");
    state.begin_dict();
    state.key("weight");
    state.tensor({.dtype = DType::int32, .storage = storage, .sizes = sizes, .strides = strides});
    state.key("turned");
    state.tensor(
        {.dtype = DType::int32, .storage = storage, .sizes = turned, .strides = turned_strides});
    state.end_dict();
    state.key("list");
    state.begin_list();
    state.none();
    state.boolean(true);
    state.begin_tuple();
    state.real(0.5);
    state.end_tuple();
    state.end_list();
    state.key("names");
    state.begin_dict();
    state.key(std::int64_t{7});
    state.string("seven");
    state.end_dict();
    state.key("step");
    state.integer(12);
    state.end_dict();
  }

  std::array<std::int64_t, 2> sizes;
  std::vector<std::int32_t> matrix;
};

inline CheckpointerConfig config() {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = 4 * (64 << 10);
  return config;
}

inline std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace ckptring::test
