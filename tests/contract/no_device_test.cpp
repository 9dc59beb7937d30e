// Tensors on a device where there is none, or where this build has no CUDA.
#include "contract/contract.h"
#include "contract/states.h"

#include <gmock/gmock.h>

#include <array>
#include <filesystem>

namespace ckptring::test {
namespace {

using testing::HasSubstr;

class NoDevice : public Contract {};
CKPTRING_ALL_PATHS(NoDevice);

/// Without a device there are such tensors only by mistake, and nothing that could make one.
at::Tensor device_tensor(std::array<float, 2>& memory) {
  c10::Storage storage(c10::Storage::use_byte_size_t(), sizeof memory,
                       at::DataPtr(memory.data(), c10::Device(c10::kCUDA, 0)), nullptr, false);
  at::Tensor made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA),
      caffe2::TypeMeta::Make<float>());
  made.unsafeGetTensorImpl()->set_sizes_contiguous({2});
  return made;
}

TEST_P(NoDevice, ATensorOnOneIsNamedWithTheReason) {
  std::array<float, 2> memory{};
  const StateDict state = dict({{"a", dict({{"w", device_tensor(memory)}})}});
  const Error error = error_of([&] { (void)checkpointer->save(directory / "it", state); });
  if (error.code() == ErrorCode::device_failed) GTEST_SKIP() << "there is CUDA: " << error.what();
  EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
  EXPECT_THAT(error.what(), HasSubstr("key a.w "));
  EXPECT_THAT(error.what(), HasSubstr("a tensor on device cuda:0 cannot be stored: "));
  EXPECT_THAT(error.what(), testing::AnyOf(HasSubstr("cudaError"), HasSubstr("libcudart"),
                                           HasSubstr("no CUDA device was found"),
                                           HasSubstr("built without CUDA (CKPTRING_CUDA)")));
  EXPECT_FALSE(std::filesystem::exists(directory / "it"));
  save("it", sample_state());
  expect_equal(sample_state(), checkpointer->load(directory / "it").state, "state");
}

}  // namespace
}  // namespace ckptring::test
