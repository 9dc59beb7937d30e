#include "stage/block_fill.h"

#include "stage/host_copy_engine.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace ckptring::stage {
namespace {

std::exception_ptr named(const Error& error, const NameOf& name_of, std::uint32_t first,
                         std::uint32_t last) {
  const std::string keys = first == last
                               ? fmt::format("stage key {}", name_of(first))
                               : fmt::format("stage keys {} to {}", name_of(first), name_of(last));
  return std::make_exception_ptr(Error(error.code(), keys, error.path(), error.what()));
}

/// Copies end together, so that only the first and the last of them can be named.
std::exception_ptr name_sources(const std::exception_ptr& failure, const NameOf& name_of,
                                const std::vector<Copy>& copies) noexcept {
  if (!failure || !name_of) return failure;
  try {
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      return named(error, name_of, copies.front().source, copies.back().source);
    }
  } catch (...) {  // it is none of ours, or there is no memory for the names
    return failure;
  }
}

}  // namespace

BlockFill::BlockFill(BlockCopies copies, Filled filled)
    : copies_(std::move(copies)),
      filled_(std::move(filled)),
      parts_left_(1 + copies_.from_devices().size()) {}

std::shared_ptr<BlockFill> BlockFill::begin(BlockCopies copies, DeviceCopies* devices,
                                            const NameOf& name_of, Filled filled) {
  std::shared_ptr<BlockFill> fill(new BlockFill(std::move(copies), std::move(filled)));
  for (const BlockCopies::FromDevice& from : fill->copies_.from_devices()) {
    const std::vector<Copy>& copies_of_part = from.copies;
    try {
      devices->to_host(from.device)
          .copy(copies_of_part,
                [fill, &copies_of_part, name_of](const std::exception_ptr& failure) {
                  fill->end_part(name_sources(failure, name_of, copies_of_part));
                });
    } catch (...) {  // this part was not begun
      fill->end_part(name_sources(std::current_exception(), name_of, copies_of_part));
    }
  }
  return fill;
}

void BlockFill::copy_from_host() {
  HostCopyEngine().copy(copies_.from_host(),
                        [this](const std::exception_ptr& failure) { end_part(failure); });
}

void BlockFill::give_up(const std::exception_ptr& why) { end_part(why); }

void BlockFill::end_part(const std::exception_ptr& failure) {
  if (failure) {
    const std::scoped_lock lock(mutex_);
    if (!failure_) failure_ = failure;
  }
  // Whoever is last has seen everybody's bytes and failures.
  if (parts_left_.fetch_sub(1, std::memory_order_acq_rel) == 1) filled_(failure_);
}

}  // namespace ckptring::stage
