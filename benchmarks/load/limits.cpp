#include "load/limits.h"

#include "support/bare_reader.h"
#include "support/copy_baseline.h"
#include "support/fio.h"
#include "support/page_cache.h"
#include "support/process.h"
#include "support/share_out.h"
#include "support/stopwatch.h"
#include "support/warm_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <system_error>
#include <vector>

namespace bench {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kPiece = 1u << 20;

/// Populated memory in small pages, as the tensors of a trainer are.
class SmallPages {
 public:
  explicit SmallPages(std::size_t size)
      : bytes_(static_cast<std::byte*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
               size) {
    if (bytes_.data() == MAP_FAILED) {
      throw std::system_error(errno, std::generic_category(), "map memory");
    }
    std::memset(bytes_.data(), 1, size);
  }
  ~SmallPages() { (void)::munmap(bytes_.data(), bytes_.size()); }
  SmallPages(const SmallPages&) = delete;
  SmallPages& operator=(const SmallPages&) = delete;

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

/// The same for every kind of load.
void set_all(LoadRun& run, Cache cache, const LoadFigures& figures) {
  for (const LoadKind kind : kLoadKinds) run.of(kind, cache) = figures;
}

LoadFigures measured(std::uint64_t bytes, double seconds, double cpu_before) {
  const double gigabytes = static_cast<double>(bytes) * 1e-9;
  return {.rate = gigabytes / seconds, .cpu = (own_cpu_seconds() - cpu_before) / gigabytes};
}

/// @return seconds
double read_whole(const std::string& path, std::span<std::byte> memory, unsigned threads) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "open " + path);
  std::atomic<bool> failed{false};
  const Stopwatch watch;
  share_out((memory.size() + kPiece - 1) / kPiece, threads, [&](std::size_t piece) {
    const std::uint64_t offset = piece * kPiece;
    const std::size_t size = std::min<std::size_t>(kPiece, memory.size() - offset);
    // From the page cache it comes whole.
    const ::ssize_t got = ::pread(fd, memory.data() + offset, size, static_cast<off_t>(offset));
    if (got != static_cast<::ssize_t>(size)) failed = true;
  });
  const double seconds = watch.seconds();
  (void)::close(fd);
  if (failed) throw std::system_error(EIO, std::generic_category(), "read " + path);
  return seconds;
}

}  // namespace

Memcpy::Memcpy(const LimitSetting& setting)
    : LoadContestant("memcpy", "memcpy by as many threads"), setting_(setting) {}

LoadRun Memcpy::run(int /*round*/) {
  const SmallPages from(setting_.state_bytes);
  const SmallPages to(setting_.state_bytes);
  const std::vector<std::span<const std::byte>> sources{from.bytes()};
  const CopyBaseline copy(sources, to.bytes(), setting_.threads);
  const double cpu_before = own_cpu_seconds();
  LoadRun run;
  const double seconds = copy.run();
  run.of(LoadKind::in_place, Cache::warm) = measured(setting_.state_bytes, seconds, cpu_before);
  return run;
}

WarmRead::WarmRead(const LimitSetting& setting)
    : LoadContestant("pread", "pread by as many threads"), setting_(setting) {}

LoadRun WarmRead::run(int /*round*/) {
  const SmallPages to(setting_.file_bytes);
  warm_up(setting_.path);
  const double cpu_before = own_cpu_seconds();
  LoadRun run;
  const double seconds = read_whole(setting_.path, to.bytes(), setting_.threads);
  run.of(LoadKind::in_place, Cache::warm) = measured(setting_.file_bytes, seconds, cpu_before);
  return run;
}

BareReader::BareReader(const LimitSetting& setting)
    : LoadContestant("bare", "bare O_DIRECT reader, no checksums"), setting_(setting) {}

LoadRun BareReader::run(int /*round*/) {
  const WarmMemory window(kBareReaderWindow);
  const std::uint64_t bytes = setting_.file_bytes / kPage * kPage;
  evict(setting_.path);
  const double cpu_before = own_cpu_seconds();
  LoadRun run;
  const double seconds = read_bare(setting_.path, bytes, window.bytes());
  set_all(run, Cache::cold, measured(bytes, seconds, cpu_before));
  if (window.huge_bytes() < kBareReaderWindow) {
    run.notes.emplace_back("not all of the memory to compare with was in huge pages");
  }
  return run;
}

FioReader::FioReader(const LimitSetting& setting)
    : LoadContestant("fio", "fio"), setting_(setting) {}

LoadRun FioReader::run(int /*round*/) {
  evict(setting_.path);
  LoadRun run;
  set_all(run, Cache::cold,
          {.rate = fio_read_rate(setting_.directory, setting_.path) * 1e-9, .cpu = {}});
  return run;
}

}  // namespace bench
