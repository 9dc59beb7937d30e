#include "support/fio.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace bench {
namespace {

constexpr std::uint64_t kPiece = 4u << 20;

void run(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  ::pid_t child = 0;
  if (const int error = ::posix_spawnp(&child, argv[0], nullptr, nullptr, argv.data(), ::environ)) {
    throw std::system_error(error, std::generic_category(), arguments[0]);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "wait for fio");
  }
  if (status != 0) {
    throw std::runtime_error("fio ended with wait status " + std::to_string(status));
  }
}

/// Sequential direct requests of 4 MiB through io_uring, eight in flight.
/// @param what "read" or "write"
/// @param directory for fio's own output
double rate_of(const std::string& what, const std::string& directory,
               const std::vector<std::string>& options) {
  const std::string output = directory + "/fio.json";
  std::vector<std::string> arguments{"fio",        "--name=" + what,       "--rw=" + what,
                                     "--bs=4M",    "--ioengine=io_uring",  "--iodepth=8",
                                     "--direct=1", "--output-format=json", "--output=" + output};
  arguments.insert(arguments.end(), options.begin(), options.end());
  run(std::move(arguments));
  std::ifstream file(output);
  const nlohmann::json result = nlohmann::json::parse(file);
  std::filesystem::remove(output);
  const nlohmann::json& figures = result.at("jobs").at(0).at(what);
  return figures.at("io_bytes").get<double>() / (figures.at("runtime").get<double>() * 1e-3);
}

}  // namespace

bool have_fio() {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/fio").c_str(), X_OK) == 0) return true;
  }
  return false;
}

double fio_write_rate(const std::string& directory, std::uint64_t bytes) {
  const std::string data = directory + "/fio.data";
  const double rate = rate_of(
      "write", directory,
      {"--filename=" + data, "--size=" + std::to_string((bytes + kPiece - 1) / kPiece * kPiece),
       "--fallocate=native", "--end_fsync=1"});
  std::filesystem::remove(data);
  return rate;
}

double fio_read_rate(const std::string& directory, const std::string& path) {
  return rate_of("read", directory, {"--filename=" + path, "--readonly"});
}

}  // namespace bench
