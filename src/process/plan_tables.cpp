#include "process/plan_tables.h"

#include "base/align.h"

#include <ckptring/error.h>

namespace ckptring::process {
namespace {

using Extent = store::DrainTables::PayloadExtent;
using Fixup = store::DrainTables::FixupEntry;

struct MutableTables {
  std::span<Extent> payloads;
  std::span<Fixup> fixups;
  std::span<std::uint64_t> ledger;
};

MutableTables cut(std::span<std::byte> memory, const ring::Description& description) {
  const auto payload_bytes = base::checked_mul(description.payload_count, sizeof(Extent));
  const auto fixup_bytes = base::checked_mul(description.fixup_count, sizeof(Fixup));
  const auto ledger_bytes = base::checked_mul(description.ledger_count, sizeof(std::uint64_t));
  if (!payload_bytes || !fixup_bytes || !ledger_bytes || *payload_bytes > memory.size() ||
      *fixup_bytes > memory.size() - *payload_bytes ||
      *ledger_bytes > memory.size() - *payload_bytes - *fixup_bytes) {
    throw Error(ErrorCode::internal, "read the plan of a save", "", "its tables are too long");
  }
  std::byte* const at = memory.data();
  return {{reinterpret_cast<Extent*>(at), description.payload_count},
          {reinterpret_cast<Fixup*>(at + *payload_bytes), description.fixup_count},
          {reinterpret_cast<std::uint64_t*>(at + *payload_bytes + *fixup_bytes),
           description.ledger_count}};
}

}  // namespace

void describe_tables(const plan::FilePlan& plan, std::uint64_t block_bytes,
                     ring::Description& description) {
  const store::DrainTableSizes sizes = store::drain_table_sizes(plan, block_bytes);
  description.payload_count = sizes.payloads;
  description.fixup_count = sizes.fixups;
  description.ledger_count = sizes.ledger;
  description.plan_bytes = sizes.payloads * sizeof(Extent) + sizes.fixups * sizeof(Fixup) +
                           sizes.ledger * sizeof(std::uint64_t);
}

void fill_tables(const plan::FilePlan& plan, std::uint64_t block_bytes,
                 const ring::Description& description, std::span<std::byte> memory) {
  const MutableTables tables = cut(memory, description);
  store::fill_drain_tables(plan, block_bytes, tables.payloads, tables.fixups, tables.ledger);
}

store::DrainTables tables_in(std::span<std::byte> memory, const ring::Description& description) {
  const MutableTables tables = cut(memory, description);
  return {tables.payloads, tables.fixups, tables.ledger};
}

}  // namespace ckptring::process
