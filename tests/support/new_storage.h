// Storages that stand for none in memory.
#pragma once

#include "plan/recording.h"

#include <cstdint>
#include <string_view>

namespace ckptring::test {

/// One that the state has not had yet.
inline std::uint32_t new_storage(StateRecorder& state, std::uint64_t bytes,
                                 std::string_view location = "cpu") {
  plan::Recording& recording = state.recording();
  return recording.storage(reinterpret_cast<const void*>(recording.storages().size() + 1), bytes,
                           location, nullptr, kHost);
}

}  // namespace ckptring::test
