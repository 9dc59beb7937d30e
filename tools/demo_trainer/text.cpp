#include "text.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
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
                             " characters, too few: at least " + std::to_string(least));
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

Batches::Batches(const Text& text, std::int64_t windows, std::int64_t length)
    : text_(text),
      windows_(windows),
      length_(length),
      all_windows_((static_cast<std::int64_t>(text.characters.size()) - 1) / length),
      stride_(all_windows_ * 5 / 8) {
  while (std::gcd(stride_, all_windows_) != 1) ++stride_;
}

Batches::Batch Batches::next() {
  Batch batch;
  const std::int64_t first = position_ * windows_;
  for (std::int64_t i = first; i < first + windows_; ++i) {
    const auto window = i % all_windows_ * stride_ % all_windows_;
    const auto begin = text_.characters.begin() + window * length_;
    batch.inputs.insert(batch.inputs.end(), begin, begin + length_);
    batch.targets.insert(batch.targets.end(), begin + 1, begin + length_ + 1);
  }
  ++position_;
  return batch;
}

}  // namespace demo
