// A consumer in a process of its own, for ring_processes_test: drains the ring into files of the
// folder that is its argument, until it is killed.
#include "ring/mini_drain.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace ckptring::ring::test {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw Error::from_errno(errno, what, "");
}

class FolderDisk final : public Disk {
 public:
  explicit FolderDisk(std::string folder) : folder_(std::move(folder)) {}

  void begin(std::uint64_t save) override {
    file_ = os::UniqueFd(::open(hidden(save).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    require(static_cast<bool>(file_), "open " + hidden(save));
  }
  void write(std::uint64_t, std::uint64_t offset, std::span<const std::byte> bytes) override {
    const auto done = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    require(done == static_cast<ssize_t>(bytes.size()), "write");
  }
  void commit(std::uint64_t save) override {
    if (::rename(hidden(save).c_str(), final(save).c_str()) == 0) return;
    struct ::stat status {};
    require(errno == ENOENT && ::stat(final(save).c_str(), &status) == 0, "rename");
  }
  void undo(std::uint64_t save) override {
    require(::unlink(hidden(save).c_str()) == 0 || errno == ENOENT, "unlink");
  }

 private:
  [[nodiscard]] std::string hidden(std::uint64_t save) const {
    return folder_ + "/.save-" + std::to_string(save);
  }
  [[nodiscard]] std::string final(std::uint64_t save) const {
    return folder_ + "/save-" + std::to_string(save);
  }
  std::string folder_;
  os::UniqueFd file_;
};

}  // namespace
}  // namespace ckptring::ring::test

namespace os = ckptring::os;
namespace ring = ckptring::ring;

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  try {
    const auto segment = ring::Segment::attach(os::UniqueFd(3));
    ring::test::FolderDisk disk(argv[1]);
    const std::uint64_t seed = std::strtoull(argv[2], nullptr, 10);
    ring::test::MiniDrain(segment.view(), {4, 5, 6}, disk, 7, seed, [] {
    }).run(static_cast<std::uint32_t>(seed));
    return 0;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "ring_drainer: %s\n", error.what());
    return 1;
  }
}
