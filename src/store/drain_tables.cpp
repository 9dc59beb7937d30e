#include "store/drain_tables.h"

#include "base/align.h"

#include <ckptring/error.h>

#include <algorithm>

namespace ckptring::store {
namespace {

using Extent = DrainTables::PayloadExtent;
using Fixup = DrainTables::FixupEntry;

[[noreturn]] void broken(const char* cause) {
  throw Error(ErrorCode::internal, "read the plan of a save", "", cause);
}

struct MutableTables {
  std::span<Extent> payloads;
  std::span<Fixup> fixups;
  std::span<std::uint64_t> ledger;
};

MutableTables cut(std::span<std::byte> memory, const DrainTableSizes& sizes) {
  const auto payload_bytes = base::checked_mul(sizes.payloads, sizeof(Extent));
  const auto fixup_bytes = base::checked_mul(sizes.fixups, sizeof(Fixup));
  const auto ledger_bytes = base::checked_mul(sizes.ledger, sizeof(std::uint64_t));
  if (!payload_bytes || !fixup_bytes || !ledger_bytes || *payload_bytes > memory.size() ||
      *fixup_bytes > memory.size() - *payload_bytes ||
      *ledger_bytes > memory.size() - *payload_bytes - *fixup_bytes) {
    broken("its tables are too long");
  }
  std::byte* const at = memory.data();
  return {{reinterpret_cast<Extent*>(at), sizes.payloads},
          {reinterpret_cast<Fixup*>(at + *payload_bytes), sizes.fixups},
          {reinterpret_cast<std::uint64_t*>(at + *payload_bytes + *fixup_bytes), sizes.ledger}};
}

}  // namespace

std::uint64_t pieces_of(std::uint64_t file_offset, std::uint64_t size,
                        std::uint64_t block_bytes) noexcept {
  if (size == 0) return 0;
  return (file_offset + size - 1) / block_bytes - file_offset / block_bytes + 1;
}

DrainTableSizes DrainTableSizes::of(const plan::FilePlan& plan, std::uint64_t block_bytes) {
  DrainTableSizes sizes{plan.payloads().size(), plan.fixups().size(), 0};
  for (const plan::Payload& payload : plan.payloads()) {
    sizes.ledger += pieces_of(payload.file_offset, payload.size, block_bytes);
  }
  return sizes;
}

void fill_drain_tables(const plan::FilePlan& plan, std::uint64_t block_bytes,
                       const DrainTableSizes& sizes, std::span<std::byte> memory) {
  if (sizes.payloads != plan.payloads().size() || sizes.fixups != plan.fixups().size()) {
    broken("its tables have other sizes than the plan");
  }
  const MutableTables tables = cut(memory, sizes);
  std::uint64_t entry = 0;
  for (std::size_t i = 0; i < tables.payloads.size(); ++i) {
    const plan::Payload& payload = plan.payloads()[i];
    tables.payloads[i] = {payload.file_offset, payload.size, entry};
    entry += pieces_of(payload.file_offset, payload.size, block_bytes);
  }
  if (entry != tables.ledger.size()) broken("its ledger has another size than the plan needs");
  for (std::size_t i = 0; i < tables.fixups.size(); ++i) {
    tables.fixups[i] = {plan.fixups()[i].file_offset, plan.fixups()[i].payload};
  }
  std::fill(tables.ledger.begin(), tables.ledger.end(), 0);
}

DrainTables drain_tables_in(std::span<std::byte> memory, const DrainTableSizes& sizes) {
  const MutableTables tables = cut(memory, sizes);
  return {tables.payloads, tables.fixups, tables.ledger};
}

}  // namespace ckptring::store
