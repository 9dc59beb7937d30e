#include "text.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace demo {
namespace {

constexpr const char* kLicences = "/usr/share/common-licenses";

void append_file(const std::filesystem::path& file, std::string& into) {
  std::ifstream stream(file, std::ios::binary);
  into.append(std::istreambuf_iterator<char>(stream), {});
  if (!stream) throw std::runtime_error("cannot read the text " + file.string());
}

std::string read_licences() {
  std::vector<std::filesystem::path> files;
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(kLicences, unreadable)) {
    // GPL is a link to GPL-3: nobody needs to learn that twice.
    if (entry.is_regular_file() && !entry.is_symlink()) files.push_back(entry.path());
  }
  if (files.empty()) {
    throw std::runtime_error(std::string("no texts in ") + kLicences + ": give one by --text");
  }
  std::sort(files.begin(), files.end());
  std::string all;
  for (const auto& file : files) append_file(file, all);
  return all;
}

}  // namespace

Text read_text(const std::string& file, std::size_t least) {
  std::string raw;
  if (file.empty()) {
    raw = read_licences();
  } else {
    append_file(file, raw);
  }
  if (raw.size() < least) {
    throw std::runtime_error("the text has " + std::to_string(raw.size()) +
                             " characters, too few for batches of " + std::to_string(least));
  }

  std::array<bool, 256> occurs{};
  for (const char c : raw) occurs[static_cast<unsigned char>(c)] = true;
  std::array<std::int64_t, 256> index{};
  Text text;
  for (std::size_t byte = 0; byte < occurs.size(); ++byte) {
    if (occurs[byte]) index[byte] = text.alphabet++;
  }
  text.characters.reserve(raw.size());
  for (const char c : raw) text.characters.push_back(index[static_cast<unsigned char>(c)]);
  return text;
}

Batches::Batches(const Text& text, std::int64_t streams, std::int64_t length)
    : text_(text), streams_(streams), length_(length) {}

Batches::Batch Batches::next() {
  const auto size = static_cast<std::int64_t>(text_.characters.size());
  Batch batch;
  for (std::int64_t stream = 0; stream < streams_; ++stream) {
    const std::int64_t begin = stream * (size / streams_) + position_ * length_;
    for (std::int64_t i = begin; i < begin + length_; ++i) {
      batch.inputs.push_back(text_.characters[static_cast<std::size_t>(i % size)]);
      batch.targets.push_back(text_.characters[static_cast<std::size_t>((i + 1) % size)]);
    }
  }
  ++position_;
  return batch;
}

}  // namespace demo
