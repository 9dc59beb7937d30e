// libFuzzer's entry for pickles, to the finished state.
#include "fuzz/targets.h"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckptring::fuzz::load_any_pickle(std::as_bytes(std::span(data, size)));
  return 0;
}
