#include "cuda/staged_saves.h"

#include "support/stopwatch.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <unistd.h>

namespace bench {

StagedSaves::StagedSaves(const ckptring::test::Devices& devices, const WorkDirectory& work,
                         const ckptring::StateDict& state, std::uint64_t state_bytes, int device)
    : devices_(devices),
      work_(work),
      state_(state),
      device_(device),
      free_before_(devices.free_bytes(device)),
      memory_before_(memory_of(::getpid())) {
  ckptring::CheckpointerConfig config;
  const std::uint64_t block = config.process_config.block_bytes;
  // A little more, for the file is larger than the state.
  ring_bytes_ = (state_bytes / block + 4) * block;
  config.process_config.ring_bytes = ring_bytes_;
  checkpointer_ = ckptring::make_async_checkpointer(config);
  checkpointer_->prepare(state_);
  checkpointer_->ready();
  checkpointer_->wait_prefaulted();
}

StagedSaves::~StagedSaves() = default;

DeviceSaveTimes StagedSaves::save() {
  work_.clear();
  const c10::Stream stream = devices_.current_stream(device_);
  const c10::DeviceGuard guard(stream.device());
  c10::Event before(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT);
  c10::Event after(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT);
  devices_.synchronise(stream);

  DeviceSaveTimes times;
  const Stopwatch watch;
  const ckptring::SaveHandle save = checkpointer_->save(work_.path() + "/async", state_);
  times.returned = watch.seconds();
  before.record(stream);
  save.fence(stream);
  times.fenced = watch.seconds() - times.returned;
  after.record(stream);
  save.staged.wait();
  times.staged = watch.seconds();
  (void)save.written.get();
  times.durable = watch.seconds();
  devices_.synchronise(stream);
  times.stream_held = before.elapsedTime(after) * 1e-3;
  return times;
}

DeviceSaveMemory StagedSaves::memory() const {
  const ProcessMemory own = memory_of(::getpid());
  const ProcessMemory helper = memory_of(checkpointer_->process_id());
  const auto difference = [](std::uint64_t larger, std::uint64_t smaller) {
    return static_cast<double>(larger) - static_cast<double>(smaller);
  };
  return {.on_device = difference(free_before_, devices_.free_bytes(device_)),
          .beyond_ring = difference(own.pss + helper.pss, memory_before_.pss + ring_bytes_)};
}

}  // namespace bench
