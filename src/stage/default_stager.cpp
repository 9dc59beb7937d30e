#include "stage/default_stager.h"

#include "stage/staging.h"

#include <ckptring/error.h>

#include <algorithm>
#include <string>
#include <thread>

namespace ckptring::stage {
namespace {

constexpr unsigned kMostThreads = 256;
constexpr unsigned kMostDefaultThreads = 8;

unsigned thread_count(const CheckpointStagerConfig& config) {
  if (config.copy_threads > kMostThreads) {
    throw Error(ErrorCode::invalid_argument, "configure staging", "",
                "copy_threads must be at most 256, and is " + std::to_string(config.copy_threads));
  }
  if (config.copy_threads != 0) return config.copy_threads;
  return std::clamp(std::thread::hardware_concurrency() / 2, 1u, kMostDefaultThreads);
}

}  // namespace

DefaultStager::DefaultStager(const CheckpointStagerConfig& config)
    : threads_(thread_count(config)) {}

StageResult DefaultStager::stage(ring::Producer& producer, const StageRequest& request,
                                 int stop_fd) {
  Staging staging(producer, request, stop_fd);
  threads_.run([&] { staging.work(); });
  return staging.finish();
}

}  // namespace ckptring::stage
