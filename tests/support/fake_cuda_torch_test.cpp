#include "support/fake_cuda_torch.h"

#include "contract/states.h"
#include "support/checked_fake_cuda.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adamw.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ckptring::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Two devices; work runs when somebody waits for it.
class FakeCudaTensors : public testing::Test {
 protected:
  explicit FakeCudaTensors(Schedule schedule = Schedule::late()) : cuda_(2, schedule) {}

  static at::Tensor on(int device, const at::Tensor& tensor) {
    return tensor.to(cuda_device(device));
  }

  CheckedFakeCuda cuda_;
};

class FakeCudaTensorsUnder : public FakeCudaTensors, public testing::WithParamInterface<Schedule> {
 protected:
  FakeCudaTensorsUnder() : FakeCudaTensors(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(All, FakeCudaTensorsUnder, testing::ValuesIn(all_schedules(4)),
                         [](const auto& test) { return test.param.name(); });

TEST_P(FakeCudaTensorsUnder, GoToADeviceAndBack) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kLong, at::kBool, at::kComplexFloat}) {
    const at::Tensor made = noise({5, 7}, dtype);
    const at::Tensor there = made.to(cuda_device(1));
    EXPECT_EQ(there.device(), cuda_device(1));
    EXPECT_TRUE(cuda_.is_device_memory(there.const_data_ptr()));
    EXPECT_EQ(bits(there.cpu()), bits(made));
    const at::Tensor elsewhere = there.to(cuda_device(0));
    EXPECT_EQ(elsewhere.device(), cuda_device(0));
    EXPECT_EQ(bits(elsewhere.cpu()), bits(made));
  }
}

TEST_P(FakeCudaTensorsUnder, CopiesBetweenDevicesAreOrderedOnBothSides) {
  at::Tensor to = on(1, at::zeros(1000));
  at::Tensor from = on(0, at::zeros(1000));
  to.fill_(1);
  from.fill_(2);
  to.copy_(from);
  from.fill_(3);
  EXPECT_EQ(bits(to.cpu()), bits(at::full(1000, 2.0F)));
}

TEST_P(FakeCudaTensorsUnder, ViewsShareTheirStorage) {
  const at::Tensor whole = on(0, at::arange(24)).view({4, 6});
  const at::Tensor column = whole.select(1, 2);
  const at::Tensor turned = whole.t().slice(0, 1, 5, 2);
  EXPECT_TRUE(column.is_alias_of(whole));
  column.fill_(-1);
  const at::Tensor expected = at::arange(24).view({4, 6});
  expected.select(1, 2).fill_(-1);
  EXPECT_EQ(bits(whole.cpu()), bits(expected));
  EXPECT_EQ(bits(turned.cpu()), bits(expected.t().slice(0, 1, 5, 2)));
  EXPECT_EQ(bits(turned.to(at::kDouble).cpu()),
            bits(expected.t().slice(0, 1, 5, 2).to(at::kDouble)));
}

TEST_P(FakeCudaTensorsUnder, AnOptimizerStepGivesWhatItGivesOnTheHost) {
  const auto step = [](c10::Device device) {
    at::Tensor parameter = at::arange(100, at::kFloat).to(device);
    const at::Tensor gradient = (at::arange(100, at::kFloat).to(device) * 0.5).add_(1);
    at::Tensor average = at::zeros_like(parameter);
    at::Tensor square = at::zeros_like(parameter);
    for (int i = 0; i < 5; ++i) {
      average.mul_(0.9).add_(gradient, 0.1);
      square.mul_(0.99).addcmul_(gradient, gradient, 0.01);
      parameter.addcdiv_(average, square.sqrt().add_(1e-8), -0.01);
    }
    return parameter.cpu();
  };
  EXPECT_EQ(bits(step(cuda_device(1))), bits(step(at::kCPU)));
}

TEST_P(FakeCudaTensorsUnder, ATrainingGivesWhatItGivesOnTheHost) {
  const auto train = [](c10::Device device) {
    torch::nn::Linear first(4, 8);
    torch::nn::Linear second(8, 1);
    std::vector<at::Tensor> parameters;
    for (torch::nn::Linear module : {first, second}) {
      module->to(device);
      for (at::Tensor& parameter : module->parameters()) {
        const at::NoGradGuard no_grad;
        parameter.copy_(at::linspace(-1, 1, parameter.numel()).view(parameter.sizes()));
        parameters.push_back(parameter);
      }
    }
    torch::optim::AdamW optimizer(parameters, torch::optim::AdamWOptions(0.01));
    const at::Tensor input = at::linspace(0, 1, 20).view({5, 4}).to(device);
    for (int i = 0; i < 3; ++i) {
      optimizer.zero_grad();
      second->forward(at::tanh(first->forward(input))).pow(2).mean().backward();
      optimizer.step();
    }
    return parameters;
  };
  const auto there = train(cuda_device(1));
  const auto here = train(at::kCPU);
  for (std::size_t i = 0; i < here.size(); ++i) {
    EXPECT_EQ(there[i].device(), cuda_device(1));
    EXPECT_EQ(bits(there[i].cpu()), bits(here[i]));
  }
}

TEST_P(FakeCudaTensorsUnder, AStateKeepsItsSharingOnItsWayAndBack) {
  const at::Tensor storage = noise({40}, at::kFloat);
  const at::Tensor complex = noise({3, 3}, at::kComplexFloat);
  const StateDict state = dict(
      {{"a", storage.slice(0, 0, 10)},
       {"inner", dict({{"b", storage.view({5, 8}).t()}, {"conj", complex.conj()}, {"number", 7}})},
       {"list", list({storage, "text", at::empty({0})})},
       {"pair", tuple({complex, IValue()})}});
  const StateDict there = moved_to(state, {cuda_device(0), cuda_device(1), c10::kCPU});
  const at::Tensor a = tensor_at(there, "a");
  EXPECT_TRUE(a.is_alias_of(there.at("list").toListRef()[0].toTensor()));
  EXPECT_EQ(a.device(), cuda_device(0));
  EXPECT_EQ(there.at("pair").toTupleRef().elements()[0].toTensor().device(), cuda_device(1));
  EXPECT_EQ(there.at("list").toListRef()[2].toTensor().device(), c10::Device(c10::kCPU));
  a.fill_(3);
  const StateDict back = to_host(there);
  storage.slice(0, 0, 10).fill_(3);
  expect_equal(state, back, "state");
  EXPECT_TRUE(tensor_at(back, "a").is_alias_of(tensor_at(back.at("inner").toGenericDict(), "b")));
}

TEST_F(FakeCudaTensors, OperatorsInPlaceDoNotWait) {
  at::Tensor tensor = on(0, at::zeros(10));
  const auto launched = [&] { return cuda_.counters().launches; };
  const auto before = launched();
  tensor.add_(1).mul_(2);
  tensor.fill_(at::scalar_tensor(5.0));
  tensor.zero_();
  EXPECT_EQ(launched(), before + 4);
  EXPECT_FALSE(cuda_.idle(cuda_.null_stream(0)));
  EXPECT_EQ(tensor.sum().item<float>(), 0);
  EXPECT_TRUE(cuda_.idle(cuda_.null_stream(0)));
}

TEST_F(FakeCudaTensors, OperatorsRunInTheCurrentStreamOfTheirDevice) {
  at::Tensor tensor = on(1, at::zeros(10));
  synchronise(current_stream(1));
  const c10::Stream other = pool_stream(1);
  EXPECT_NE(native_handle(other), nullptr);
  EXPECT_EQ(native_handle(current_stream(1)), nullptr);
  {
    const c10::StreamGuard guard(other);
    EXPECT_EQ(current_stream(1), other);
    EXPECT_EQ(cuda_.current_device(), 1);
    std::thread([&] { EXPECT_NE(current_stream(1), other); }).join();
    tensor.fill_(1);
  }
  EXPECT_EQ(current_device(), cuda_device(0));
  EXPECT_TRUE(cuda_.idle(cuda_.null_stream(1)));
  EXPECT_FALSE(cuda_.idle(native_handle(other)));
  synchronise(other);
  EXPECT_EQ(bits(tensor.cpu()), bits(at::ones(10)));
}

TEST_F(FakeCudaTensors, EventsOrderTheStreams) {
  at::Tensor tensor = on(0, at::zeros(10));
  const c10::Stream other = pool_stream(0);
  c10::Event event(c10::kCUDA);
  tensor.fill_(1);
  event.record(current_stream(0));
  event.block(other);
  {
    const c10::StreamGuard guard(other);
    tensor.add_(1);
  }
  synchronise(other);
  synchronise(current_stream(0));
  EXPECT_EQ(bits(tensor.cpu()), bits(at::full(10, 2.0F)));
}

TEST_F(FakeCudaTensors, TheCurrentDeviceIsTheRuntimes) {
  const auto& api = FakeCuda::runtime();
  ASSERT_EQ(api.set_device(1), cudaSuccess);
  EXPECT_EQ(at::empty({1}, at::TensorOptions().device(c10::kCUDA)).device(), cuda_device(1));
  {
    const c10::DeviceGuard guard(cuda_device(0));
    int device = -1;
    ASSERT_EQ(api.get_device(&device), cudaSuccess);
    EXPECT_EQ(device, 0);
  }
  EXPECT_EQ(cuda_.current_device(), 1);
}

TEST_F(FakeCudaTensors, AGuardThatEndsMakesNoContext) {
  {
    const c10::DeviceGuard guard(cuda_device(1));
    EXPECT_EQ(cuda_.current_device(), 1);
  }
  EXPECT_EQ(current_device(), cuda_device(0));
  EXPECT_EQ(cuda_.current_device(), 1);  // that the next one is elsewhere only libtorch knows
  EXPECT_EQ(at::empty({1}, at::TensorOptions().device(c10::kCUDA)).device(), cuda_device(0));
  {
    const c10::DeviceGuard guard(cuda_device(1));
    EXPECT_THAT(cuda_.contexts(), ElementsAre(testing::Key(0), testing::Pair(1, "the training")));
  }
  EXPECT_EQ(cuda_.current_device(), 0);  // it has one by now
}

TEST_F(FakeCudaTensors, MemoryGoesInTheOrderOfItsStream) {
  at::Tensor tensor = on(0, at::zeros(10));
  tensor.fill_(1);
  tensor = at::Tensor();  // the kernel has not run
  EXPECT_THAT(cuda_.take_violations(), testing::IsEmpty());
}

TEST_F(FakeCudaTensors, MemoryThatAnotherStreamUsesHasToBeRecordedOnIt) {
  const c10::Stream other = pool_stream(0);
  for (const bool recorded : {false, true}) {
    at::Tensor tensor = on(0, at::zeros(10));
    synchronise(current_stream(0));
    {
      const c10::StreamGuard guard(other);
      tensor.fill_(1);
    }
    if (recorded) tensor.record_stream(other);
    tensor = at::Tensor();
    const auto violations = cuda_.take_violations();
    if (recorded) {
      EXPECT_THAT(violations, testing::IsEmpty());
    } else {
      EXPECT_THAT(violations, ElementsAre(HasSubstr("pending work uses the memory")));
    }
  }
}

TEST_F(FakeCudaTensors, WhatHasToWaitGivesTheHostsResult) {
  const at::Tensor host = at::arange(12, at::kFloat).view({3, 4});
  const at::Tensor device = on(0, host);
  EXPECT_TRUE(at::equal(device, device.clone()));
  EXPECT_FALSE(at::equal(device, device + 1));
  EXPECT_EQ(bits(device.matmul(device.t()).cpu()), bits(host.matmul(host.t())));
  EXPECT_EQ(bits(at::nonzero(device > 5).cpu()), bits(at::nonzero(host > 5)));
  EXPECT_EQ(device.max().item<float>(), 11);
  EXPECT_EQ(bits(at::cat({device, device}, 1).cpu()), bits(at::cat({host, host}, 1)));
}

TEST_F(FakeCudaTensors, OperatorsOnListsRunInTheStreamToo) {
  const std::vector<at::Tensor> tensors = {on(0, at::zeros(3)), on(0, at::zeros(5))};
  at::_foreach_add_(tensors, 2);
  EXPECT_FALSE(cuda_.idle(cuda_.null_stream(0)));
  EXPECT_EQ(bits(tensors[1].cpu()), bits(at::full(5, 2.0F)));
}

TEST_F(FakeCudaTensors, TensorsOfTheHostAndOfADeviceDoNotMix) {
  EXPECT_THROW(on(0, at::zeros(3)).add_(at::zeros(3)), c10::Error);
}

TEST_F(FakeCudaTensors, AResizedTensorKeepsItsContents) {
  at::Tensor tensor = on(0, at::ones(4));
  tensor.resize_({8});
  EXPECT_EQ(bits(tensor.slice(0, 0, 4).cpu()), bits(at::ones(4)));
  tensor.resize_({2});
  EXPECT_EQ(bits(tensor.cpu()), bits(at::ones(2)));
}

TEST_F(FakeCudaTensors, NothingOfItIsCountedButLaunches) {
  at::Tensor tensor = on(0, at::zeros(10));
  tensor.fill_(1);
  (void)tensor.cpu();
  const CudaCounters counted = cuda_.counters();
  EXPECT_EQ(counted.copies, 0u);
  EXPECT_EQ(counted.device_synchronisations, 0u);
  EXPECT_EQ(counted.pageable_copies, 0u);
  EXPECT_THAT(counted.calls, testing::Each(0u));
  EXPECT_GE(counted.launches, 1u);
}

TEST(FakeCudaTorch, ThereAreNoDevicesWithoutAFakeCuda) {
  const auto* const guard = c10::impl::getDeviceGuardImpl(c10::kCUDA);
  EXPECT_EQ(guard->deviceCount(), 0);
  EXPECT_THROW(at::zeros(1).to(cuda_device(0)), c10::Error);
  const FakeCuda cuda(3);
  EXPECT_EQ(guard->deviceCount(), 3);
}

TEST(FakeCudaTorch, EachFakeCudaBeginsWithItsDefaultStreams) {
  const auto* const guard = c10::impl::getDeviceGuardImpl(c10::kCUDA);
  {
    const CheckedFakeCuda cuda;
    (void)guard->exchangeStream(pool_stream());
    EXPECT_NE(native_handle(current_stream()), nullptr);
  }
  const CheckedFakeCuda cuda;
  EXPECT_EQ(native_handle(current_stream()), nullptr);
}

using FakeCudaTorchDeathTest = FakeCudaTensors;

TEST_F(FakeCudaTorchDeathTest, TheHostThatReadsATensorsMemoryIsTold) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const at::Tensor tensor = to_device(at::zeros(10), 0);
  const auto* const memory = static_cast<const char*>(tensor.const_data_ptr());
  EXPECT_DEATH((void)std::string(memory, tensor.nbytes()), "the host touched device memory");
}

}  // namespace
}  // namespace ckptring::test
