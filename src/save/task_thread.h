// The thread that stages: one task after the other, in the order in which they were handed over.
#pragma once

#include "os/own_thread.h"
#include "save/lifetime.h"

#include <chrono>
#include <deque>
#include <functional>

namespace ckptring::save {

class TaskThread {
 public:
  using Task = std::function<void()>;

  explicit TaskThread(Lifetime& life) : life_(life) {}

  /// @throws Error out_of_memory if the system allows no more threads
  void start();
  /// What a task throws is logged, and the next one is run.
  /// @throws Error closed if the thread was to end already
  void enqueue(Task task);

  /// With the mutex of Lifetime held: whether every task has ended.
  [[nodiscard]] bool is_idle() const { return tasks_.empty() && !task_runs_; }
  /// @return whether every task has ended by then
  bool wait_idle_for(std::chrono::milliseconds limit);

  /// Runs what is left, then ends the thread.
  void join();

  /// With the mutex held: the thread ends after the task at hand, should that ever end. `detach`
  /// must follow, and this and the Lifetime must live for ever.
  /// @return the tasks that were not begun
  std::deque<Task> abandon();
  void detach() { thread_.detach(); }

 private:
  void run();

  Lifetime& life_;
  // Guarded by the mutex of life_.
  std::deque<Task> tasks_;
  bool task_runs_ = false;
  bool stop_ = false;
  os::OwnThread thread_;
};

}  // namespace ckptring::save
