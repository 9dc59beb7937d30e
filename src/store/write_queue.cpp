#include "store/write_queue.h"

#include "base/system_words.h"
#include "store/thread_writes.h"
#include "store/uring_writes.h"

#include <ckptring/error.h>

#include <fmt/format.h>
#include <linux/magic.h>

#include <array>

namespace ckptring::store {
namespace {

constexpr std::uint64_t kDirectUnit = 4096;

// Their direct writes have ended, one way or the other, before a killed process is gone or lets
// go of the file. (NFS, for one, returns to a killed process with the write still under way.)
// Overlay takes only local file systems as its upper layer.
bool waits_for_direct_writes(const struct ::statfs& status) {
  switch (static_cast<unsigned long>(status.f_type)) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
      return true;
    default:
      return false;
  }
}

/// Switches O_DIRECT on. Returns why it did not; empty: it is on.
std::string enable_direct(FileSystem& files, int fd, const std::string& path,
                          const base::LogContext& log) {
  struct ::statfs status {};
  if (files.statfs(fd, status) != 0) return "statfs: " + base::words_of_errno(errno);
  if (!waits_for_direct_writes(status)) {
    return fmt::format("file system type {:#x} is not known to wait for direct writes",
                       static_cast<unsigned long>(status.f_type));
  }
  bool told = false;
#ifdef STATX_DIOALIGN
  struct ::statx alignment {};
  if (files.statx(fd, STATX_DIOALIGN, alignment) == 0 &&
      (alignment.stx_mask & STATX_DIOALIGN) != 0) {
    if (alignment.stx_dio_offset_align == 0 || alignment.stx_dio_mem_align == 0) {
      return "the file system refuses direct writes to this file";
    }
    if (kDirectUnit % alignment.stx_dio_offset_align != 0 ||
        kDirectUnit % alignment.stx_dio_mem_align != 0) {
      return fmt::format("direct writes need an alignment of {} bytes in the file and {} in memory",
                         static_cast<unsigned>(alignment.stx_dio_offset_align),
                         static_cast<unsigned>(alignment.stx_dio_mem_align));
    }
    told = true;
  }
#endif
  if (!told) {
    static base::FirstTime first_time;
    if (first_time()) {
      log.info(
          "the system does not tell what alignment direct writes need (statx, Linux 6.1): "
          "{} bytes are taken",
          kDirectUnit);
    }
  }
  if (files.set_flags(fd, O_DIRECT) != 0) return "O_DIRECT: " + base::words_of_errno(errno);
  // Some file systems take the flag and refuse the first transfer. Reading asks the same question
  // as writing and damages nothing.
  alignas(kDirectUnit) std::array<std::byte, kDirectUnit> buffer{};
  if (uninterrupted([&] { return files.pread(fd, buffer.data(), buffer.size(), 0); }) < 0) {
    std::string reason = "a direct read: " + base::words_of_errno(errno);
    if (files.set_flags(fd, 0) != 0) {
      throw Error::from_errno(errno, "switch off O_DIRECT for", path);
    }
    return reason;
  }
  return {};
}

[[noreturn]] void refuse(const WriteQueueRequest& request, const char* mode,
                         const std::string& reason) {
  throw Error(ErrorCode::invalid_argument, "write", request.path,
              fmt::format("the write mode {} does not work here: {}", mode, reason));
}

}  // namespace

std::unique_ptr<WriteQueue> open_write_queue(FileSystem& files, const WriteQueueRequest& request) {
  const CheckpointWriterConfig& config = request.config;
  const auto threads = [&](std::uint64_t unit, bool dsync) {
    return std::make_unique<ThreadWrites>(files, request.fd, request.path, config.threads, unit,
                                          dsync);
  };
  if (config.mode == WriteMode::buffered) return threads(1, true);

  const bool uring_forced = config.mode == WriteMode::direct_io_uring;
  const bool threads_forced = config.mode == WriteMode::direct_threads;
  const std::string no_direct = request.direct_refusal.empty()
                                    ? enable_direct(files, request.fd, request.path, request.log)
                                    : request.direct_refusal;
  if (!no_direct.empty()) {
    if (uring_forced) refuse(request, "direct_io_uring", no_direct);
    if (threads_forced) refuse(request, "direct_threads", no_direct);
    static base::FirstTime first_time;
    if (first_time()) {
      request.log.info("writes go through the page cache, not O_DIRECT: {}", no_direct);
    }
    return threads(1, true);
  }
  if (threads_forced) return threads(kDirectUnit, false);

  std::string no_uring = "the file system seam must see every write";
  if (files.allows_raw_io()) {
    UringWrites::Opened opened =
        UringWrites::open(request.fd, request.path, config.queue_depth, kDirectUnit);
    if (opened.queue) return std::move(opened.queue);
    no_uring = "io_uring: " + base::words_of_errno(opened.error);
  }
  if (uring_forced) refuse(request, "direct_io_uring", no_uring);
  static base::FirstTime first_time;
  if (first_time()) {
    request.log.info("direct writes go through {} blocking threads: {}", config.threads, no_uring);
  }
  return threads(kDirectUnit, false);
}

}  // namespace ckptring::store
