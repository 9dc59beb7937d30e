#include "support/fake_cuda_guard.h"

#include <unistd.h>
#include <csignal>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace ckptring::test::fake_cuda {
namespace {

struct Guarded {
  std::atomic<std::uintptr_t> begin{0};  ///< 0: free
  std::atomic<std::uintptr_t> end{0};
  std::atomic<int> device{0};
};
std::array<Guarded, 64> guarded;

std::mutex installing;
std::size_t guards = 0;
struct sigaction before {};

/// A line on stderr, by what a signal handler may call.
class Line {
 public:
  void add(std::string_view text) {
    for (const char c : text) {
      if (size_ < text_.size()) text_[size_++] = c;
    }
  }
  void add_hex(std::uintptr_t number) {
    add("0x");
    for (int shift = 60; shift >= 0; shift -= 4) {
      const std::uintptr_t digit = (number >> shift) & 0xf;
      if (number >> shift != 0 || shift == 0) add({&"0123456789abcdef"[digit], 1});
    }
  }
  void print() { (void)!::write(STDERR_FILENO, text_.data(), size_); }

 private:
  std::array<char, 256> text_{};
  std::size_t size_ = 0;
};

void on_fault(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const Guarded& range : guarded) {
    const std::uintptr_t begin = range.begin.load();
    const std::uintptr_t end = range.end.load();
    if (begin == 0 || address < begin || address >= end) continue;
    Line line;
    line.add("fake CUDA: the host touched device memory at ");
    line.add_hex(address);
    line.add(", which is in the memory of device ");
    const int device = range.device.load();
    line.add({&"0123456789abcdef"[device & 0xf], 1});
    line.add(", ");
    line.add_hex(begin);
    line.add(" to ");
    line.add_hex(end);
    line.add("\n");
    line.print();
    std::abort();
  }
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    // The access is repeated, and now ends the process.
    std::signal(signal, SIG_DFL);
  }
}

void check(int result, const char* what) {
  if (result != 0) throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

HostAccessGuard::HostAccessGuard(int device, const std::byte* begin, std::size_t bytes) {
  const std::lock_guard lock(installing);
  if (guards == 0) {
    struct sigaction ours {};
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    check(::sigaction(SIGSEGV, &ours, &before), "sigaction");
  }
  ++guards;
  for (slot_ = 0; slot_ < guarded.size(); ++slot_) {
    Guarded& range = guarded[slot_];
    if (range.begin.load() != 0) continue;
    range.device.store(device);
    range.end.store(reinterpret_cast<std::uintptr_t>(begin) + bytes);
    range.begin.store(reinterpret_cast<std::uintptr_t>(begin));
    return;
  }
  throw std::length_error("more devices than can be guarded");
}

HostAccessGuard::~HostAccessGuard() {
  const std::lock_guard lock(installing);
  guarded[slot_].begin.store(0);
  if (--guards == 0) (void)::sigaction(SIGSEGV, &before, nullptr);
}

}  // namespace ckptring::test::fake_cuda
