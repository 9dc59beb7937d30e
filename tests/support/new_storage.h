// Storages that stand for none in memory.
#pragma once

#include "plan/state_recorder.h"

#include <cstdint>
#include <string_view>

namespace ckptring::test {

/// One that the state has not had yet.
inline std::uint32_t new_storage(plan::StateRecorder& state, std::uint64_t bytes,
                                 std::string_view location = "cpu") {
  return state.storage(reinterpret_cast<const void*>(state.storages().size() + 1), bytes, location);
}

}  // namespace ckptring::test
