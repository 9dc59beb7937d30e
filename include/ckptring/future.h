// A result that arrives later. Read next: checkpointer.h.
#pragma once

#include <ckptring/error.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <ratio>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

namespace ckptring {

template <class T>
class Promise;

/// A copyable handle on a value or an error that some other thread delivers once.
///
/// All copies share one state. Unlike `std::future` it can be asked repeatedly, and it knows
/// whether anybody has fetched its outcome. Thread-safe. Every future that this library hands out
/// becomes ready in finite time, with a value or with an `Error` that names the cause; one that
/// waits for a CUDA device which hangs, once the checkpointer is closed or destroyed. In a forked
/// child, to which nobody would deliver anything, every call throws Error wrong_process.
template <class T>
class Future {
 public:
  /// An invalid future; only assignment, destruction and `valid()` are allowed.
  Future() = default;

  [[nodiscard]] bool valid() const noexcept { return state_ != nullptr; }

  /// Whether the outcome is there. Never blocks; does not count as fetching it.
  [[nodiscard]] bool ready() const {
    const auto lock = state_->locked();
    return state_->done;
  }

  /// Blocks until the outcome is there. Does not throw the carried error.
  void wait() const {
    auto lock = state_->locked();
    state_->changed.wait(lock, [&] { return state_->done; });
  }

  /// As `wait`, for at most `timeout`: of any type and size, one that no clock can hold is for
  /// ever, and nothing or less (or not a number) is a look. Returns whether the outcome is there.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> timeout) const {
    const Clock::duration left = saturated(timeout);
    if (!(left > Clock::duration::zero())) return ready();
    const Clock::time_point now = Clock::now();
    return wait_until(left < Clock::time_point::max() - now ? now + left
                                                            : Clock::time_point::max());
  }

  /// As `wait`, until `deadline`, of any size as above. Returns whether the outcome is there.
  template <class Duration>
  bool wait_until(std::chrono::time_point<std::chrono::steady_clock, Duration> deadline) const {
    const Clock::time_point end(saturated(deadline.time_since_epoch()));
    auto lock = state_->locked();
    return state_->changed.wait_until(lock, end, [&] { return state_->done; });
  }

  /// Blocks, then returns the value or throws the error. Marks the outcome as fetched.
  T get() const {
    auto lock = state_->locked();
    state_->changed.wait(lock, [&] { return state_->done; });
    state_->fetched = true;
    if (state_->error) std::rethrow_exception(state_->error);
    if constexpr (!std::is_void_v<T>) return *state_->value;
  }

  /// Blocks, then returns the error, or null if there is a value. Marks the outcome as fetched.
  [[nodiscard]] std::exception_ptr error() const {
    auto lock = state_->locked();
    state_->changed.wait(lock, [&] { return state_->done; });
    state_->fetched = true;
    return state_->error;
  }

  /// Whether `get` or `error` has returned the outcome to somebody, through any copy.
  [[nodiscard]] bool fetched() const {
    const auto lock = state_->locked();
    return state_->fetched;
  }

 private:
  friend class Promise<T>;
  using Clock = std::chrono::steady_clock;
  using Value = std::conditional_t<std::is_void_v<T>, std::monostate, T>;
  struct State {
    /// In a forked child the mutex may be held by a thread that does not exist there.
    [[nodiscard]] std::unique_lock<std::mutex> locked() {
      if (::getpid() != owner) {
        throw Error(ErrorCode::wrong_process, "use a future", "",
                    "this process was forked from process " + std::to_string(owner) +
                        ", to which the result is delivered");
      }
      return std::unique_lock(mutex);
    }

    const pid_t owner = ::getpid();
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Value> value;
    std::exception_ptr error;
    bool done = false;
    bool fetched = false;
  };
  /// In the clock's own unit, without a step that overflows; NaN is nothing.
  template <class Rep, class Period>
  static Clock::duration saturated(std::chrono::duration<Rep, Period> any) {
    constexpr double kMostSeconds = 9.2e9;  // of 9.22e18 nanoseconds
    static_assert(std::ratio_less_equal_v<std::nano, Clock::period>);
    const double seconds = std::chrono::duration<double>(any).count();
    if (seconds >= kMostSeconds) return Clock::duration::max();
    if (seconds <= -kMostSeconds) return Clock::duration::min();
    if (!(seconds == seconds)) return Clock::duration::zero();
    using Nanoseconds = std::chrono::duration<long double, std::nano>;
    return std::chrono::duration_cast<Clock::duration>(Nanoseconds(any));
  }

  explicit Future(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

/// The delivering end. The first outcome counts, later ones are ignored and return false. A
/// promise destroyed without an outcome leaves its future with `std::logic_error`.
template <class T>
class Promise {
 public:
  Promise() : state_(std::make_shared<typename Future<T>::State>()) {}
  Promise(Promise&&) noexcept = default;
  Promise& operator=(Promise&&) noexcept = default;
  Promise(const Promise&) = delete;
  Promise& operator=(const Promise&) = delete;
  ~Promise() {
    if (!state_ || is_kept()) return;
    try {
      set_error(std::make_exception_ptr(std::logic_error("promise abandoned")));
    } catch (...) {  // no memory for these words
      set_error(std::current_exception());
    }
  }

  [[nodiscard]] Future<T> future() const { return Future<T>(state_); }

  template <class... Args>
  bool set_value(Args&&... args) {
    return finish([&] { state_->value.emplace(std::forward<Args>(args)...); });
  }
  bool set_error(std::exception_ptr error) {
    return finish([&] { state_->error = std::move(error); });
  }

 private:
  [[nodiscard]] bool is_kept() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->done;
  }
  template <class Fill>
  bool finish(Fill fill) {
    {
      const std::scoped_lock lock(state_->mutex);
      if (state_->done) return false;
      fill();
      state_->done = true;
    }
    state_->changed.notify_all();
    return true;
  }
  std::shared_ptr<typename Future<T>::State> state_;
};

}  // namespace ckptring
