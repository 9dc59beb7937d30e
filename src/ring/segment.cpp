#include "ring/segment.h"

#include "base/align.h"
#include "os/memfd.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <new>
#include <utility>

namespace ckptring::ring {
namespace {

template <class T>
T* at(std::byte* memory, std::uint64_t offset) noexcept {
  return std::launder(reinterpret_cast<T*>(memory + offset));
}

std::uint64_t lines_offset() noexcept { return base::align_up(sizeof(Header), kCacheLine); }

}  // namespace

SegmentView::SegmentView(std::byte* memory) noexcept
    : SegmentView(memory, at<Header>(memory, 0)->geometry) {}

SegmentView::SegmentView(std::byte* memory, const Geometry& geometry) noexcept
    : header_(at<Header>(memory, 0)),
      geometry_(geometry),
      producer_(at<ProducerLine>(memory, lines_offset())),
      supervisor_(at<SupervisorLine>(memory, lines_offset() + sizeof(ProducerLine))),
      consumer_(
          at<ConsumerLine>(memory, lines_offset() + sizeof(ProducerLine) + sizeof(SupervisorLine))),
      slots_(at<Slot>(memory, geometry_.slots_offset())),
      records_(at<Record>(memory, geometry_.records_offset())),
      plan_(memory + geometry_.plan_offset()),
      blocks_(memory + geometry_.blocks_offset()) {}

void SegmentView::format(std::byte* memory, const Geometry& geometry,
                         const Settings& settings) noexcept {
  // A fresh memory file is all zeros, and zero is the initial state of every atomic here: position
  // + 1 of no slot, the number of no save.
  new (memory) Header{kMagic, kProtocolVersion, 0, geometry, settings};
}

Segment::Segment(os::UninheritedFd fd, SharedMapping mapping, const Geometry& geometry)
    : fd_(std::move(fd)), mapping_(std::move(mapping)), view_(mapping_.data(), geometry) {}

Segment Segment::create(const Geometry& geometry, const Settings& settings) {
  if (const std::string complaint = geometry.complaint(); !complaint.empty()) {
    throw Error(ErrorCode::invalid_argument, "make the ring", "", complaint);
  }
  const std::uint64_t bytes = geometry.total_bytes();
  auto fd = os::UninheritedFd::made_by([&] { return os::make_memfd("ckptring", bytes); });
  SharedMapping mapping(fd.get(), bytes);
  SegmentView::format(mapping.data(), geometry, settings);
  return {std::move(fd), std::move(mapping), geometry};
}

Segment Segment::attach(os::UniqueFd ring) {
  auto fd = os::UninheritedFd::made_by([&] { return std::move(ring); });
  const auto refuse = [](const std::string& why) {
    return Error(ErrorCode::process_failed, "attach to the ring", "", why);
  };
  struct ::stat info {};
  if (::fstat(fd.get(), &info) != 0) throw Error::from_errno(errno, "attach to the ring", "");
  const auto bytes = static_cast<std::uint64_t>(info.st_size);
  if (bytes < sizeof(Header)) throw refuse("the descriptor is not a ring");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) throw refuse("the descriptor is not a ring");
  if ((seals & F_SEAL_SHRINK) == 0) throw refuse("its memory may shrink under us");
  SharedMapping mapping(fd.get(), bytes);
  const auto* const header = at<Header>(mapping.data(), 0);
  if (header->magic != kMagic) throw refuse("the descriptor is not a ring");
  if (header->protocol_version != kProtocolVersion) {
    throw refuse("the trainer speaks version " + std::to_string(header->protocol_version) +
                 " of the ring's protocol, this program version " +
                 std::to_string(kProtocolVersion));
  }
  const Geometry geometry = header->geometry;
  if (const std::string complaint = geometry.complaint(); !complaint.empty()) {
    throw refuse(complaint);
  }
  if (geometry.total_bytes() != bytes) throw refuse("its size does not match its header");
  return {std::move(fd), std::move(mapping), geometry};
}

}  // namespace ckptring::ring
