#include "save/task_thread.h"

#include <ckptring/error.h>

#include <utility>

namespace ckptring::save {
namespace {

constexpr const char* kName = "ckptring-stage";

}  // namespace

void TaskThread::start() {
  thread_ = os::OwnThread(kName, os::OwnThread::Priority::background, [this] { run(); });
}

void TaskThread::run() {
  std::unique_lock lock(life_.mutex);
  for (;;) {
    life_.changed.wait(lock, [this] { return stop_ || !tasks_.empty(); });
    if (tasks_.empty()) return;  // stopped, and everything begun is staged
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    task_runs_ = true;
    lock.unlock();
    os::run_and_log_failure(kName, task);
    task = nullptr;  // with what it holds, and not under the lock
    lock.lock();
    task_runs_ = false;
    life_.changed.notify_all();
  }
}

void TaskThread::enqueue(Task task) {
  {
    const std::scoped_lock lock(life_.mutex);
    if (stop_) throw Error(ErrorCode::closed, "stage", "", "the checkpointer was closed");
    tasks_.push_back(std::move(task));
  }
  life_.changed.notify_all();
}

bool TaskThread::wait_idle_for(std::chrono::milliseconds limit) {
  std::unique_lock lock(life_.mutex);
  return life_.changed.wait_for(lock, limit, [this] { return is_idle(); });
}

void TaskThread::join() {
  {
    const std::scoped_lock lock(life_.mutex);
    stop_ = true;
  }
  life_.changed.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::deque<TaskThread::Task> TaskThread::abandon() {
  stop_ = true;
  return std::exchange(tasks_, {});
}

}  // namespace ckptring::save
