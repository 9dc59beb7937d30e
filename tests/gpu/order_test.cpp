// What is saved is what the streams had been given when `save` was called: not less, because their
// work has not run yet, and not more, because work was enqueued after `fence`.
#include "gpu/gpu_test.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <ckptring/training_state.h>
#include <torch/nn/modules/batchnorm.h>

#include <string>
#include <vector>

namespace ckptring::test {
namespace {

constexpr std::int64_t kElements = 3 << 20;  // 12 blocks

/// Blocks in the ring: the state fits, or streams through.
class GpuOrder : public GpuTest, public testing::WithParamInterface<std::uint64_t> {
 protected:
  void expect_saved(const std::string& name, double value) {
    expect_equal(dict({{"w", at::full({kElements}, value)}}), load(name), name);
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, GpuOrder, testing::Values(16, 3), [](const auto& blocks) {
  return "Of" + std::to_string(blocks.param) + "Blocks";
});

TEST_P(GpuOrder, AFencedStreamMayChangeTheStateAtOnce) {
  const auto checkpointer = make_async_checkpointer(ring_of(GetParam()));
  for (const bool default_stream : {true, false}) {
    const c10::Stream stream = default_stream ? devices_.current_stream(0) : devices_.new_stream(0);
    const c10::StreamGuard guard(stream);
    at::Tensor w = full(kElements, 0, 0);
    auto busy = devices_.keep_busy(0);
    w.fill_(1);
    const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"w", w}}));
    busy.reset();
    save.fence(stream);
    w.fill_(2);
    devices_.synchronise(stream);  // where it did not wait for the save, it has come before it now
    save.written.get();
    expect_saved("it", 1);
    EXPECT_TRUE(w.cpu().eq(2).all().item<bool>());
  }
}

TEST_P(GpuOrder, AForwardPassMayWriteItsStatisticsAtOnce) {
  const auto checkpointer = make_async_checkpointer(ring_of(GetParam()));
  torch::nn::BatchNorm1d norm(64);
  norm->to(cuda_device(0));
  const at::Tensor batch = full(64 * 8, 3, 0).view({8, 64});
  const at::Tensor w = full(kElements, 0, 0);
  for (int round = 0; round < 3; ++round) {
    const StateDict state = dict({{"w", w}, {"norm", collect_module(*norm)}});
    const StateDict expected = moved_to(to_host(state), {c10::kCPU});
    auto busy = devices_.keep_busy(0);
    const SaveHandle save = checkpointer->save(directory_ / "it", state);
    norm->forward(batch);
    busy.reset();
    save.fence(devices_.current_stream(0));
    w.add_(1);
    save.written.get();
    expect_equal(expected, load("it"), "round " + std::to_string(round));
    EXPECT_NE(bits(norm->running_mean),
              bits(tensor_at(expected.at("norm").toGenericDict(), "running_mean")));
  }
}

TEST_P(GpuOrder, OnceStagedAnyStreamMayChangeTheState) {
  const auto checkpointer = make_async_checkpointer(ring_of(GetParam()));
  at::Tensor w = full(kElements, 0, 0);
  auto busy = devices_.keep_busy(0);
  w.fill_(1);
  const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"w", w}}));
  busy.reset();
  save.staged.get();
  const c10::StreamGuard guard(devices_.new_stream(0));
  w.fill_(2);
  save.written.get();
  expect_saved("it", 1);
  devices_.synchronise(devices_.current_stream(0));
}

TEST_P(GpuOrder, ASyncSaveHasReadTheStateWhenItReturns) {
  const auto checkpointer = make_sync_checkpointer();
  at::Tensor w = full(kElements, 0, 0);
  auto busy = devices_.keep_busy(0);
  w.fill_(1);
  busy.reset();
  const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"w", w}}));
  const c10::StreamGuard guard(devices_.new_stream(0));
  w.fill_(2);
  save.written.get();
  expect_saved("it", 1);
  devices_.synchronise(devices_.current_stream(0));
}

TEST_P(GpuOrder, EachSaveOfATrainingHasTheValuesOfItsStep) {
  CheckpointerConfig config = ring_of(GetParam());
  config.max_saves_in_flight = 3;
  const auto checkpointer = make_async_checkpointer(config);
  std::vector<at::Tensor> weights;
  weights.reserve(static_cast<std::size_t>(devices_.count()));
  for (int device = 0; device < devices_.count(); ++device) {
    weights.push_back(full(kElements, 1, device));
  }
  std::vector<SaveHandle> saves;
  for (int step = 0; step < 6; ++step) {
    StateDict state = make_state_dict();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      state.insert_or_assign(static_cast<std::int64_t>(i), weights[i]);
    }
    saves.push_back(checkpointer->save(directory_ / std::to_string(step), state));
    for (int device = 0; device < devices_.count(); ++device) {
      saves.back().fence(devices_.current_stream(device));
    }
    for (at::Tensor& weight : weights) weight.mul_(2);
  }
  for (int step = 0; step < 6; ++step) {
    saves[static_cast<std::size_t>(step)].written.get();
    const StateDict loaded = load(std::to_string(step));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      EXPECT_TRUE(
          loaded.at(static_cast<std::int64_t>(i)).toTensor().eq(1 << step).all().item<bool>())
          << "step " << step << ", device " << i;
    }
  }
}

}  // namespace
}  // namespace ckptring::test
