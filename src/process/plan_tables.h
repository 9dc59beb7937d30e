// The tables of one save in the ring's plan area: extents | fix-ups | ledger.
#pragma once

#include "plan/file_plan.h"
#include "ring/layout.h"
#include "store/block_drain.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::process {

/// Sets the counts and plan_bytes of `description` for this plan.
void describe_tables(const plan::FilePlan& plan, std::uint64_t block_bytes,
                     ring::Description& description);

/// Writes the tables of `plan` into `memory` (description.plan_bytes).
void fill_tables(const plan::FilePlan& plan, std::uint64_t block_bytes,
                 const ring::Description& description, std::span<std::byte> memory);

/// The tables found in `memory`.  @throws Error internal if they do not fit it
store::DrainTables tables_in(std::span<std::byte> memory, const ring::Description& description);

}  // namespace ckptring::process
