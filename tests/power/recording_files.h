// Hands every call on to the kernel and writes down what a save asks of the file system: which
// operation, on what, and when it began and ended. What a power cut may leave of it is worked out
// in crash_states.h.
#pragma once

#include "store/forwarding_files.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace ckptring::store::test {

/// Our own numbers: the kernel gives those of removed files to new ones.
using Inode = std::size_t;
using Instant = std::uint64_t;
inline constexpr Instant kNever = std::numeric_limits<Instant>::max();

struct Node {
  bool directory = false;
  std::map<std::string, Inode> names;  ///< of a directory
  std::vector<std::byte> bytes;        ///< of a file
};

/// Operations that change something, and syncs.
struct Operation {
  enum class Kind { write, allocate, truncate, create, remove, rename, sync };
  Kind kind;
  /// Whose state it changes or syncs: the file, or for names the directory that they are in.
  Inode subject;
  Instant begun = 0;
  Instant ended = kNever;

  // write; `size` also of allocate and truncate
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::vector<std::byte> data = {};
  bool durable_on_return = false;

  // create, remove, rename
  std::string name = {};
  std::string new_name = {};
  Inode child = 0;
};

/// All that happened to a directory tree.
struct Recording {
  std::vector<Node> before;  ///< durable; [0] is the root
  std::vector<Node> nodes;   ///< all there ever were, empty
  std::vector<Operation> operations;
  Instant end = 0;            ///< number of instants
  Instant reported = kNever;  ///< when the save was reported as written
};

/// Thrown in the place of a system call: the process is gone.
struct Died {};

class RecordingFiles final : public ForwardingFiles {
 public:
  explicit RecordingFiles(std::string root) : root_(std::move(root)) {
    scan(root_);
    recording_.before = recording_.nodes;
    for (Node& node : recording_.nodes) {
      node.names.clear();
      node.bytes.clear();
    }
  }

  /// The driving thread dies before (odd: after) its call number `step / 2` of those that change or
  /// sync something; writes are made by other threads.
  void die_at(std::uint64_t step) { die_at_ = step; }
  /// The next process lives.
  void live() { die_at_ = kNever; }

  void report() { recording_.reported = ++recording_.end; }
  [[nodiscard]] Recording take() { return std::move(recording_); }

  int open(const std::string& path, int flags, mode_t mode) override {
    if ((flags & O_CREAT) == 0) return ForwardingFiles::open(path, flags, mode);
    if ((flags & O_EXCL) == 0) throw std::logic_error("a file is created without O_EXCL");
    return step([&] {
      const std::size_t at = begin({.kind = Operation::Kind::create,
                                    .subject = directory_of(path),
                                    .name = name_of(path),
                                    .child = add_node(false)});
      const int fd = ForwardingFiles::open(path, flags, mode);
      if (fd >= 0) numbers_[number(fd)] = recording_.operations[at].child;
      end(at, fd >= 0);
      if (fd >= 0 && dies_after_this()) (void)::close(fd);
      return fd;
    });
  }
  int mkdir(const std::string& path, mode_t mode) override {
    return step([&] {
      if (!exists(parent_of(path))) return -1;
      const std::size_t at = begin({.kind = Operation::Kind::create,
                                    .subject = directory_of(path),
                                    .name = name_of(path),
                                    .child = add_node(true)});
      const int result = ForwardingFiles::mkdir(path, mode);
      if (result == 0) numbers_[number(path)] = recording_.operations[at].child;
      return ended(at, result);
    });
  }
  int fallocate(int fd, std::uint64_t bytes) override {
    return step([&] {
      const std::size_t at =
          begin({.kind = Operation::Kind::allocate, .subject = node(fd), .size = bytes});
      return ended(at, ForwardingFiles::fallocate(fd, bytes));
    });
  }
  int ftruncate(int fd, std::uint64_t bytes) override {
    return step([&] {
      const std::size_t at =
          begin({.kind = Operation::Kind::truncate, .subject = node(fd), .size = bytes});
      return ended(at, ForwardingFiles::ftruncate(fd, bytes));
    });
  }
  ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                 int rwf_flags) override {
    const auto* const bytes = static_cast<const std::byte*>(data);
    const std::size_t at = begin({.kind = Operation::Kind::write,
                                  .subject = node(fd),
                                  .offset = offset,
                                  .size = size,
                                  .data = {bytes, bytes + size},
                                  // What O_DIRECT wrote may still be in the device's cache.
                                  .durable_on_return = (rwf_flags & RWF_DSYNC) != 0});
    const ssize_t result = ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
    if (result != static_cast<ssize_t>(size)) throw std::logic_error("a short write");
    end(at, true);
    return result;
  }
  int fsync(int fd) override {
    return step([&] {
      const std::size_t at = begin({.kind = Operation::Kind::sync, .subject = node(fd)});
      return ended(at, ForwardingFiles::fsync(fd));
    });
  }
  int rename(const std::string& from, const std::string& to) override {
    if (parent_of(from) != parent_of(to)) throw std::logic_error("a rename across directories");
    return step([&] {
      const std::size_t at = begin({.kind = Operation::Kind::rename,
                                    .subject = directory_of(from),
                                    .name = name_of(from),
                                    .new_name = name_of(to),
                                    .child = numbers_.at(number(from))});
      return ended(at, ForwardingFiles::rename(from, to));
    });
  }
  int unlink(const std::string& path) override {
    return removed(path, [&] { return ForwardingFiles::unlink(path); });
  }
  int rmdir(const std::string& path) override {
    return removed(path, [&] { return ForwardingFiles::rmdir(path); });
  }

 private:
  /// One system call of the driving thread that changes or syncs something.
  template <class Call>
  int step(Call call) {
    const std::uint64_t number = steps_++;
    if (die_at_ == 2 * number) throw Died{};
    const int result = call();
    if (die_at_ == 2 * number + 1) throw Died{};
    return result;
  }

  Inode scan(const std::string& path) {
    const bool directory = std::filesystem::is_directory(path);
    const Inode inode = add_node(directory);
    numbers_[number(path)] = inode;
    if (directory) {
      for (const auto& entry : std::filesystem::directory_iterator(path)) {
        const Inode child = scan(entry.path().string());
        recording_.nodes[inode].names[entry.path().filename().string()] = child;
      }
    } else {
      std::ifstream in(path, std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
      const auto bytes = std::as_bytes(std::span(text));
      recording_.nodes[inode].bytes.assign(bytes.begin(), bytes.end());
    }
    return inode;
  }
  Inode add_node(bool directory) {
    const std::scoped_lock lock(mutex_);
    recording_.nodes.push_back({directory, {}, {}});
    return recording_.nodes.size() - 1;
  }
  static std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }
  static std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }
  ::ino_t number(const std::string& path) {
    struct ::stat status {};
    if (ForwardingFiles::stat(path, status, false) != 0) throw std::logic_error("stat " + path);
    return status.st_ino;
  }
  ::ino_t number(int fd) {
    struct ::stat status {};
    if (fstat(fd, status) != 0) throw std::logic_error("fstat");
    return status.st_ino;
  }
  Inode node(int fd) { return numbers_.at(number(fd)); }
  Inode directory_of(const std::string& path) { return numbers_.at(number(parent_of(path))); }

  std::size_t begin(Operation operation) {
    const std::scoped_lock lock(mutex_);
    operation.begun = ++recording_.end;
    recording_.operations.push_back(std::move(operation));
    return recording_.operations.size() - 1;
  }
  void end(std::size_t at, bool succeeded) {
    const std::scoped_lock lock(mutex_);
    Operation& operation = recording_.operations[at];
    operation.ended = ++recording_.end;
    // What failed changed nothing: it never begins.
    if (!succeeded) operation.begun = operation.ended = kNever;
  }
  int ended(std::size_t at, int result) {
    const int error = errno;
    end(at, result == 0);
    errno = error;
    return result;
  }
  template <class Call>
  int removed(const std::string& path, Call call) {
    return step([&] {
      if (!exists(path)) return -1;
      const std::size_t at = begin(
          {.kind = Operation::Kind::remove, .subject = directory_of(path), .name = name_of(path)});
      return ended(at, call());
    });
  }
  bool exists(const std::string& path) {
    struct ::stat status {};
    return ForwardingFiles::stat(path, status, false) == 0;
  }
  [[nodiscard]] bool dies_after_this() const { return die_at_ == 2 * (steps_ - 1) + 1; }

  std::string root_;
  std::map<::ino_t, Inode> numbers_;
  std::mutex mutex_;
  Recording recording_;
  std::uint64_t steps_ = 0;
  std::uint64_t die_at_ = kNever;
};

}  // namespace ckptring::store::test
