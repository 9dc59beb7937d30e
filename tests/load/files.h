// Files whose pickle is given, byte by byte.
#pragma once

#include "plan/zip_layout.h"
#include "support/materialize.h"

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ckptring::test {

/// Writes an archive with this data.pkl, and records of so many bytes as data/0, data/1, ...
inline void write_archive(const std::string& path, std::string_view pickle,
                          const std::vector<std::size_t>& records = {}) {
  plan::ZipLayout layout("archive");
  layout.add_literal("data.pkl", std::as_bytes(std::span(pickle)));
  for (std::size_t i = 0; i < records.size(); ++i) {
    layout.add_literal("data/" + std::to_string(i), pattern(records[i], 1));
  }
  const Bytes file = materialize(std::move(layout).finish(), {});
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
}

inline std::string little(std::uint64_t value, int width) {
  std::string out;
  for (int i = 0; i < width; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}
inline std::string pickled(std::string_view text) {
  return "X" + little(text.size(), 4).append(text);
}
inline std::string pickled(std::int64_t number) {
  return "\x8a\x08" + little(static_cast<std::uint64_t>(number), 8);
}
inline std::string repeated(std::string_view part, std::size_t times) {
  std::string out;
  out.reserve(part.size() * times);
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}
/// {"l": [parts]}
inline std::string list_of(std::string_view parts) {
  return "}" + pickled("l") + "](" + std::string(parts) + "es.";
}

}  // namespace ckptring::test
