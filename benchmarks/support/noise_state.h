// A state to save without torch.
#pragma once

#include "plan/pt_layout.h"
#include "save/save_job.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace bench {

/// One tensor of noise.
class NoiseState {
 public:
  explicit NoiseState(std::uint64_t bytes)
      : bytes_(std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(bytes))) {
    std::mt19937_64 random(1);
    for (std::size_t at = 0; at + 8 <= bytes_->size(); at += 8) {
      const std::uint64_t word = random();
      std::memcpy(bytes_->data() + at, &word, 8);
    }
  }

  [[nodiscard]] ckptring::save::SaveJob job(const std::string& path) const {
    ckptring::StateRecorder recorder;
    recorder.storage({.data = bytes_->data(), .bytes = bytes_->size()});
    const std::array<std::int64_t, 1> sizes{static_cast<std::int64_t>(bytes_->size())};
    const std::array<std::int64_t, 1> strides{1};
    recorder.begin_dict();
    recorder.key("tensor");
    recorder.tensor({.dtype = ckptring::plan::DType::uint8,
                     .storage = 0,
                     .offset = 0,
                     .sizes = sizes,
                     .strides = strides,
                     .requires_grad = false,
                     .conj = false,
                     .neg = false});
    recorder.end_dict();
    return {.path = path,
            .plan = ckptring::plan::lay_out_pt(recorder.recording(), {{}, 1, {}}),
            .sources = {{bytes_->data(), bytes_->size()}},
            .keep_alive = bytes_};
  }

 private:
  std::shared_ptr<std::vector<std::byte>> bytes_;
};

}  // namespace bench
