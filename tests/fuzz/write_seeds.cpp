// fuzz_seeds DIRECTORY: writes the seeds to DIRECTORY/archive and DIRECTORY/pickle.
#include "fuzz/seeds.h"

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace {

void write(const std::filesystem::path& directory, const ckptring::fuzz::Seeds& seeds) {
  std::filesystem::create_directories(directory);
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    std::ofstream out(directory / ("seed_" + std::to_string(i)), std::ios::binary);
    out.write(reinterpret_cast<const char*>(seeds[i].data()),
              static_cast<std::streamsize>(seeds[i].size()));
    if (!out.flush()) throw std::runtime_error("cannot write to " + directory.string());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: fuzz_seeds DIRECTORY\n", stderr);
    return 64;
  }
  try {
    const std::filesystem::path directory = argv[1];
    write(directory / "archive", ckptring::fuzz::archive_seeds());
    write(directory / "pickle", ckptring::fuzz::pickle_seeds());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
