// Plans of any shape, their sources, and the file that they describe, made the naive way.
#pragma once

#include "plan/file_plan.h"
#include "stage/source.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace ckptring::stage::test {

using Bytes = std::vector<std::byte>;

struct PlannedFile {
  plan::FilePlan plan;
  std::vector<Bytes> storages;  ///< by source index
  Bytes image;                  ///< the whole file, byte for byte

  [[nodiscard]] std::vector<Source> sources() const {
    std::vector<Source> all;
    for (const Bytes& storage : storages) all.push_back({storage.data(), storage.size()});
    return all;
  }
};

inline Bytes random_bytes(std::mt19937_64& random, std::size_t size) {
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() | 1);  // never zero
  return bytes;
}

/// literal, padding, payload, literal, padding, payload, ... literal; any of them but the payloads
/// may be empty. Sources have their numbers in another order than the payloads.
inline PlannedFile random_file(std::mt19937_64& random, std::size_t payload_count,
                               std::size_t largest_payload) {
  Bytes literals;
  Bytes image;
  std::vector<plan::Payload> payloads;
  std::vector<std::uint16_t> padding;
  std::vector<std::uint32_t> order(payload_count);
  for (std::size_t i = 0; i < payload_count; ++i) order[i] = static_cast<std::uint32_t>(i);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<Bytes> storages(payload_count);
  const auto add_literal = [&] {
    const Bytes literal = random_bytes(random, random() % 3 == 0 ? 0 : random() % 200);
    literals.insert(literals.end(), literal.begin(), literal.end());
    image.insert(image.end(), literal.begin(), literal.end());
  };
  for (std::size_t i = 0; i < payload_count; ++i) {
    add_literal();
    const auto zeros = static_cast<std::uint16_t>(
        random() % 2 == 0 ? 0 : random() % (plan::FilePlan::kMaxPadding + 1));
    padding.push_back(zeros);
    image.insert(image.end(), zeros, std::byte{});
    const Bytes payload = random_bytes(random, 1 + random() % largest_payload);
    payloads.push_back({image.size(), payload.size(), order[i]});
    image.insert(image.end(), payload.begin(), payload.end());
    storages[order[i]] = payload;
  }
  add_literal();
  if (image.empty()) {
    literals.push_back(std::byte{1});
    image.push_back(std::byte{1});
  }
  const std::uint64_t total = image.size();
  return {plan::FilePlan(std::move(literals), std::move(payloads), {}, total, padding),
          std::move(storages), std::move(image)};
}

}  // namespace ckptring::stage::test
