// Loads and saves on command: one JSON object a line on stdin, one answer a line on stdout.
//
//   {"do": "copy", "from": FILE, "to": DIR, "path": "sync"|"async", "verify": BOOL}
//                                                           load all, save again
//   {"do": "fill", "from": FILE, "into": FILE, "to": DIR}   load the second, fill it in place from
//                                                           the first, save it
//   {"do": "ask", "from": FILE, "keys": [...], "to": DIR}   load these top-level keys only, save
//   {"do": "two_dtypes", "to": DIR}   save one storage of the floats 0.5, 1.5, ... as three dtypes
//   {"do": "torch_save", "to": FILE}   save a module with torch::save
//   {"do": "latest", "from": DIR}   the newest checkpoint's path
//   {"do": "train", "from": FILE, "to": DIR, "optimizer": "adamw"|"amsgrad"|"sgd", "steps": N}
//
// Answers are {"ok": true, ...} or {"ok": false, "code": "...", "what": "..."}.
#include <ckptring/checkpointer.h>
#include <ckptring/training_state.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

using ckptring::StateDict;
using nlohmann::json;

/// Every tensor of a state, in order.
void gather(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) gather(entry.value(), tensors);
  } else if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) gather(item, tensors);
  } else if (value.isTuple()) {
    for (const c10::IValue& item : value.toTupleRef().elements()) gather(item, tensors);
  }
}

class Peer {
 public:
  json answer(const json& command) {
    const std::string what = command.at("do");
    if (what == "two_dtypes") return two_dtypes(command);
    if (what == "torch_save") {
      torch::save(torch::nn::Linear(2, 3), std::string(command.at("to")));
      return {{"ok", true}};
    }
    const std::string from = command.at("from");
    if (what == "copy") {
      const auto loaded =
          sync_->load(from, {}, {.verify_checksums = command.value("verify", true)});
      ckptring::Checkpointer& saver = command.value("path", "sync") == "async"
                                          ? static_cast<ckptring::Checkpointer&>(*async_)
                                          : *sync_;
      saver.save(command.at("to"), loaded.state).written.get();
      return {{"ok", true}};
    }
    if (what == "fill") return fill(command);
    if (what == "ask") {
      StateDict state = ckptring::make_state_dict();
      for (const std::string key : command.at("keys")) {
        state.insert_or_assign(key, c10::IValue());
      }
      const auto loaded = sync_->load(from, state);
      sync_->save(command.at("to"), loaded.state).written.get();
      return {{"ok", true}, {"missing", loaded.missing_keys}};
    }
    if (what == "train") return train(command);
    if (what == "latest") return {{"ok", true}, {"path", ckptring::latest(from).value().path}};
    return {{"ok", false}, {"code", "invalid_argument"}, {"what", "unknown command " + what}};
  }

 private:
  json fill(const json& command) {
    const StateDict state = sync_->load(command.at("into")).state;
    std::vector<at::Tensor> before;
    gather(state, before);
    std::vector<const void*> memory;
    memory.reserve(before.size());
    for (const at::Tensor& tensor : before) memory.push_back(tensor.const_data_ptr());
    const auto loaded = sync_->load(command.at("from"), state);
    std::vector<at::Tensor> after;
    gather(state, after);
    bool in_place = before.size() == after.size();
    for (std::size_t i = 0; in_place && i < before.size(); ++i) {
      in_place = after[i].is_same(before[i]) && after[i].const_data_ptr() == memory[i];
    }
    sync_->save(command.at("to"), state).written.get();
    return {{"ok", true}, {"missing", loaded.missing_keys}, {"in_place", in_place}};
  }

  /// What stock torch reads but cannot write.
  json two_dtypes(const json& command) {
    const at::Tensor floats = at::arange(24, at::kFloat).add(0.5).view({4, 6});
    StateDict state = ckptring::make_state_dict();
    state.insert_or_assign("floats", floats);
    state.insert_or_assign("ints", floats.view(at::kInt).t());
    state.insert_or_assign("bytes", floats.view(at::kByte).slice(0, 1, 3));
    sync_->save(command.at("to"), state).written.get();
    return {{"ok", true}};
  }

  /// Takes over a model and an optimizer from Python, trains on, and hands them back.
  json train(const json& command) {
    torch::nn::Sequential model(torch::nn::Linear(6, 12), torch::nn::BatchNorm1d(12),
                                torch::nn::Tanh(), torch::nn::Linear(12, 3));
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    const std::string kind = command.at("optimizer");
    if (kind == "sgd") {
      optimizer = std::make_unique<torch::optim::SGD>(model->parameters(), 1.0);
    } else {
      optimizer = std::make_unique<torch::optim::AdamW>(model->parameters());
    }
    const StateDict state = sync_->load(command.at("from")).state;
    ckptring::restore_module(*model, state.at("model").toGenericDict());
    ckptring::restore_optimizer(*optimizer, state.at("optimizer").toGenericDict());
    const at::Tensor input = state.at("input").toTensor();
    std::vector<double> losses;
    for (int step = command.at("steps"); step > 0; --step) {
      optimizer->zero_grad();
      const at::Tensor loss = model->forward(input).pow(2).mean();
      loss.backward();
      optimizer->step();
      losses.push_back(loss.item().toDouble());
    }
    StateDict trained = ckptring::make_state_dict();
    trained.insert_or_assign("model", ckptring::collect_module(*model));
    trained.insert_or_assign("optimizer", ckptring::collect_optimizer(*optimizer));
    trained.insert_or_assign("input", input);
    sync_->save(command.at("to"), trained).written.get();
    return {{"ok", true}, {"losses", losses}};
  }

  static ckptring::CheckpointerConfig small_ring() {
    ckptring::CheckpointerConfig config;
    config.process_config.block_bytes = 64 << 10;
    config.process_config.ring_bytes = 4 * config.process_config.block_bytes;
    return config;
  }
  std::unique_ptr<ckptring::SyncCheckpointer> sync_ = ckptring::make_sync_checkpointer();
  std::unique_ptr<ckptring::AsyncCheckpointer> async_ =
      ckptring::make_async_checkpointer(small_ring());
};

}  // namespace

int main() try {
  Peer peer;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = peer.answer(json::parse(line));
    } catch (const ckptring::Error& error) {
      answer = {{"ok", false}, {"code", ckptring::to_string(error.code())}, {"what", error.what()}};
    } catch (const std::exception& error) {
      answer = {{"ok", false}, {"code", "unexpected"}, {"what", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
} catch (const std::exception& error) {
  (void)std::fprintf(stderr, "interop_peer: %s\n", error.what());
  return 1;
}
