// The CUDA devices that a program is run with: those of this machine (cuda_devices.cpp) or of the
// stand-in (stand_in_devices.cpp), whichever is linked.
#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <string>

namespace ckptring::test {

class Devices {
 public:
  /// Tensors on them end before this.
  Devices();
  ~Devices();
  Devices(const Devices&) = delete;
  Devices& operator=(const Devices&) = delete;

  [[nodiscard]] int count() const;
  /// If there are none: "no CUDA device", and why.
  [[nodiscard]] std::string why_none() const;

  /// The stream of this thread.
  [[nodiscard]] c10::Stream current_stream(int device) const;
  /// Another one. Made current by a c10::StreamGuard.
  [[nodiscard]] c10::Stream new_stream(int device) const;
  /// Until the stream's work has ended.
  void synchronise(const c10::Stream& stream) const;

  /// Gives the current stream of a device so much to do that what is enqueued after it does not run
  /// for some tenths of a second. The stand-in's waits until the result is gone: nobody may wait
  /// for the stream before.
  [[nodiscard]] std::shared_ptr<void> keep_busy(int device) const;

  /// Whatever the device does from some moment on fails, for the life of this process.
  void break_device(int device) const;

  /// Memory that nobody uses, neither this process nor others. 0 if that is not known.
  [[nodiscard]] std::uint64_t free_bytes(int device) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ckptring::test
