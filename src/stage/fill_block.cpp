#include "stage/fill_block.h"

#include "stage/stream_copy.h"

namespace ckptring::stage {

void fill_block(const plan::FilePlan& plan, std::span<const Source> sources,
                std::uint64_t file_offset, std::span<std::byte> block) noexcept {
  plan.for_each_piece(file_offset, block.size(), [&](const plan::FilePlan::Piece& piece) {
    const std::byte* from = piece.literal;
    if (from == nullptr) {
      from = sources[plan.payloads()[piece.payload].source].data + piece.payload_offset;
    }
    stream_copy(block.data() + (piece.file_offset - file_offset), from,
                static_cast<std::size_t>(piece.size));
  });
  order_streamed();
}

}  // namespace ckptring::stage
