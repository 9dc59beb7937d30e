// States live on the two devices of a stand-in for CUDA and on the host, storage by storage. Each
// test has a stand-in of its own, which is looked through for violations when the test has ended.
//
//   contract_device_test [GoogleTest's options] eager|late|SEED
#include "contract/places.h"
#include "support/checked_fake_cuda.h"
#include "support/fake_cuda_torch.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>

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

void train_on(const SaveHandle& save, const StateDict& state) {
  for (int device = 0; device < kDevices; ++device) save.fence(current_stream(device));
  for_each_on_devices(state, [](const at::Tensor& bytes) { bytes.fill_(0xee); });
}

}  // namespace ckptring::test

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  testing::UnitTest::GetInstance()->listeners().Append(
      new ckptring::test::Devices(ckptring::test::schedule_of(argc > 1 ? argv[1] : "late")));
  return RUN_ALL_TESTS();
}
