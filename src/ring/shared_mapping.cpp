#include "ring/shared_mapping.h"

#include "base/align.h"
#include "os/uninherited_fd.h"
#include "ring/layout.h"

#include <ckptring/error.h>
#include <sys/mman.h>
#include <boost/interprocess/mapped_region.hpp>

#include <cerrno>

namespace ckptring::ring {
namespace bip = boost::interprocess;
namespace {

/// What mapped_region wants of a "memory mappable": a handle.
struct MappableFd {
  int fd;
  [[nodiscard]] bip::mapping_handle_t get_mapping_handle() const noexcept { return {fd, false}; }
};

/// Address space kept free until the mapping takes its aligned middle.
class Reservation {
 public:
  explicit Reservation(std::uint64_t bytes) : size_(bytes + kHugePageBytes) {
    base_ = ::mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) throw Error::from_errno(errno, "reserve address space", "");
    aligned_ = base::align_up(reinterpret_cast<std::uint64_t>(base_), kHugePageBytes);
  }
  ~Reservation() {
    if (!keep_middle_) {
      (void)::munmap(base_, size_);
      return;
    }
    const auto begin = reinterpret_cast<std::uint64_t>(base_);
    if (aligned_ > begin) (void)::munmap(base_, aligned_ - begin);
    const std::uint64_t end = base::align_up(aligned_ + middle_, kBlockAlignment);
    if (begin + size_ > end) {
      (void)::munmap(reinterpret_cast<void*>(end), begin + size_ - end);
    }
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  [[nodiscard]] void* aligned() const noexcept { return reinterpret_cast<void*>(aligned_); }
  void taken(std::uint64_t bytes) noexcept {
    keep_middle_ = true;
    middle_ = bytes;
  }

 private:
  void* base_ = nullptr;
  std::uint64_t size_;
  std::uint64_t aligned_ = 0;
  std::uint64_t middle_ = 0;
  bool keep_middle_ = false;
};

}  // namespace

struct SharedMapping::Region {
  bip::mapped_region mapped;
};

SharedMapping::SharedMapping(int fd, std::uint64_t bytes) : region_(std::make_unique<Region>()) {
  Reservation reservation(bytes);
  // Forked children (data loaders) must not keep the ring alive or touch it.
  const os::ForksHeld held;
  try {
    region_->mapped = bip::mapped_region(MappableFd{fd}, bip::read_write, 0, bytes,
                                         reservation.aligned(), MAP_FIXED);
  } catch (const bip::interprocess_exception& failure) {
    throw Error(ErrorCode::out_of_memory, "map shared memory", "", failure.what(),
                failure.get_native_error());
  }
  reservation.taken(bytes);
  if (::madvise(region_->mapped.get_address(), bytes, MADV_DONTFORK) != 0) {
    throw Error::from_errno(errno, "keep shared memory from forked children", "");
  }
  // As large as a checkpoint, and nothing to find a bug by. Refused: a dump is larger.
  (void)::madvise(region_->mapped.get_address(), bytes, MADV_DONTDUMP);
}

SharedMapping::~SharedMapping() = default;
SharedMapping::SharedMapping(SharedMapping&&) noexcept = default;
SharedMapping& SharedMapping::operator=(SharedMapping&&) noexcept = default;

std::byte* SharedMapping::data() const noexcept {
  return static_cast<std::byte*>(region_->mapped.get_address());
}

std::uint64_t SharedMapping::size() const noexcept { return region_->mapped.get_size(); }

}  // namespace ckptring::ring
