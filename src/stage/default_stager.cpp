#include "stage/default_stager.h"

#include "os/thread_count.h"
#include "stage/staging.h"

#include <ckptring/error.h>

namespace ckptring::stage {

DefaultStager::DefaultStager(const CheckpointStagerConfig& config)
    : threads_(os::thread_count("copy_threads", config.copy_threads, 2), "ckptring-copy",
               os::OwnThread::Priority::background) {}

StageResult DefaultStager::stage(ring::Producer& producer, const StageRequest& request,
                                 int stop_fd) {
  Staging staging(producer, request, stop_fd);
  threads_.run([&] { staging.work(); });
  return staging.finish();
}

}  // namespace ckptring::stage
