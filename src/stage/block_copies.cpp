#include "stage/block_copies.h"

#include <algorithm>

namespace ckptring::stage {

std::vector<Copy>& BlockCopies::from(int place) {
  if (place == kHost) return from_host_;
  const auto found = std::ranges::find(from_devices_, place, &FromDevice::device);
  if (found != from_devices_.end()) return found->copies;
  return from_devices_.emplace_back(FromDevice{place, {}}).copies;
}

void BlockCopies::add(const plan::FilePlan& plan, std::span<const Source> sources,
                      std::uint64_t file_offset, std::span<std::byte> block) {
  plan.for_each_piece(file_offset, block.size(), [&](const plan::FilePlan::Piece& piece) {
    Copy copy{block.data() + (piece.file_offset - file_offset), piece.literal, piece.size, 0};
    int place = kHost;
    if (piece.literal == nullptr) {
      copy.source = plan.payloads()[piece.payload].source;
      const Source& source = sources[copy.source];
      copy.from = source.data + piece.payload_offset;
      place = source.place;
    }
    std::vector<Copy>& copies = from(place);
    if (!copies.empty()) {
      Copy& last = copies.back();
      if (last.to + last.size == copy.to && last.from + last.size == copy.from &&
          last.source == copy.source) {
        last.size += copy.size;
        return;
      }
    }
    copies.push_back(copy);
  });
}

}  // namespace ckptring::stage
