// Putting the file's bytes into one block. The same for the ring and for the sync path, hence the
// same file from both.
#pragma once

#include "plan/file_plan.h"
#include "stage/source.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::stage {

/// Copies the bytes [file_offset, file_offset + block.size()) of the file into `block`. They are
/// visible before any later store of this thread.
/// @param sources by Payload::source
void fill_block(const plan::FilePlan& plan, std::span<const Source> sources,
                std::uint64_t file_offset, std::span<std::byte> block) noexcept;

}  // namespace ckptring::stage
