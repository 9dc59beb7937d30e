// States live on the two devices of a stand-in for CUDA and on the host, storage by storage. Each
// test has a stand-in of its own, which is looked through for violations when the test has ended.
//
//   contract_device_test [GoogleTest's options] eager|late|SEED
#include "contract/places.h"
#include "support/checked_fake_cuda.h"
#include "support/fake_cuda_torch.h"

#include <ATen/ATen.h>
#include <ckptring/torch/fence.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace ckptring::test {
namespace {

constexpr int kDevices = 2;

/// Calls `visit` with the bytes of each device tensor's storage.
void for_each_on_devices(const c10::IValue& value,
                         const std::function<void(const at::Tensor&)>& visit) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined() || !tensor.is_cuda() || tensor.storage().nbytes() == 0) return;
    const at::Tensor bytes =
        at::empty({0}, at::TensorOptions().dtype(at::kByte).device(tensor.device()));
    visit(bytes.set_(tensor.storage(), 0, {static_cast<std::int64_t>(tensor.storage().nbytes())},
                     {1}));
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) for_each_on_devices(entry.value(), visit);
  } else if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) for_each_on_devices(item, visit);
  } else if (value.isTuple()) {
    for (const c10::IValue& item : value.toTupleRef().elements()) for_each_on_devices(item, visit);
  }
}

class Devices final : public testing::EmptyTestEventListener {
 public:
  explicit Devices(Schedule schedule) : schedule_(schedule) {}
  void OnTestStart(const testing::TestInfo& /*test*/) override {
    cuda_.emplace(kDevices, schedule_);
  }
  void OnTestEnd(const testing::TestInfo& /*test*/) override { cuda_.reset(); }

 private:
  Schedule schedule_;
  std::optional<CheckedFakeCuda> cuda_;
};

Schedule schedule_of(const std::string& word) {
  if (word == "eager") return Schedule::eager();
  if (word == "late") return Schedule::late();
  return Schedule::random(std::stoull(word));
}

}  // namespace

StateDict placed(const StateDict& state) {
  const StateDict there = moved_to(state, {cuda_device(0), cuda_device(1), c10::kCPU});
  for_each_on_devices(there, [](const at::Tensor& bytes) {
    const at::Tensor values = bytes.clone();
    bytes.fill_(0xaa);
    synchronise(current_stream(bytes.device().index()));
    bytes.copy_(values);
  });
  return there;
}

void before_step(const SaveHandle& save) {
  for (int device = 0; device < kDevices; ++device) save.fence(current_stream(device));
}

void train_on(const SaveHandle& save, const StateDict& state) {
  before_step(save);
  for_each_on_devices(state, [](const at::Tensor& bytes) { bytes.fill_(0xee); });
}

c10::Device training_device() { return cuda_device(0); }

at::Tensor repeated_bytes(std::uint64_t bytes, std::uint64_t period) {
  constexpr int kDevice = 1;
  const auto free = [](void* memory) {
    FakeCuda* const cuda = FakeCuda::current();
    if (cuda == nullptr) return;  // it went with its FakeCuda
    const std::array streams = {cuda->null_stream(kDevice)};
    cuda->device_free(memory, streams);
  };
  void* const memory = FakeCuda::current()->device_alloc_repeated(kDevice, bytes, period);
  at::DataPtr owner(memory, memory, free, cuda_device(kDevice));
  const c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, std::move(owner), nullptr,
                             false);
  return at::empty({0}, at::TensorOptions().dtype(at::kByte).device(cuda_device(kDevice)))
      .set_(storage, 0, {static_cast<std::int64_t>(bytes)}, {1});
}

}  // namespace ckptring::test

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  testing::UnitTest::GetInstance()->listeners().Append(
      new ckptring::test::Devices(ckptring::test::schedule_of(argc > 1 ? argv[1] : "late")));
  return RUN_ALL_TESTS();
}
