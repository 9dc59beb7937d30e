// A sandbox refuses system calls that a checkpointer cannot do without: its constructor says so.
#include "save/async_save.h"

#include "support/forbid_calls.h"
#include "support/forked.h"
#include "support/log_lines.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <exception>
#include <string>
#include <tuple>

namespace ckptring::save {
namespace {

/// 0 if `make` throws an Error of this code whose words contain `part`.
template <class Make>
int is_refused(ErrorCode code, const std::string& part, Make&& make) {
  try {
    make();
  } catch (const Error& error) {
    if (error.code() != code) return 3;
    return std::string(error.what()).find(part) != std::string::npos ? 0 : 4;
  } catch (const std::exception&) {
    return 5;
  }
  return 6;
}

void make_async_save() {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  const AsyncSave async(config, {});
}

TEST(RefusedCalls, OfTheConstructorAreErrorsThatNameThem) {
  struct Refusal {
    long call;
    const char* words;
  };
  for (const auto& [call, words] : {Refusal{SYS_memfd_create, "create shared memory ckptring: "},
                                    Refusal{SYS_eventfd2, "create an eventfd: "},
                                    Refusal{SYS_pidfd_open, "open a pidfd of process "}}) {
    for (const auto& [error, code, why] :
         {std::tuple{EPERM, ErrorCode::permission, "Operation not permitted"},
          std::tuple{ENOSYS, ErrorCode::io, "Function not implemented"},
          std::tuple{EMFILE, ErrorCode::io, "Too many open files"}}) {
      EXPECT_EQ(test::exit_status_of_fork(
                    [&, call = call, words = words, error = error, code = code, why = why] {
                      if (!test::forbid_call(call, error)) return 2;
                      const int named = is_refused(code, words, make_async_save);
                      return named != 0 ? named : is_refused(code, why, make_async_save);
                    }),
                0)
          << words << why;
    }
  }
}

TEST(RefusedCalls, OfAThreadAreAnErrorOfTheConstructor) {
  EXPECT_EQ(test::exit_status_of_fork([] {
              if (!test::forbid_new_threads(EAGAIN)) return 2;
              return is_refused(ErrorCode::out_of_memory, "the system allows no more threads",
                                make_async_save);
            }),
            0);
}

TEST(RefusedCalls, OfThePipeToTheHelperShowInReady) {
  EXPECT_EQ(test::exit_status_of_fork([] {
              const test::LogLines quiet(LogLevel::off);
              if (!test::forbid_call(SYS_pipe2, EPERM)) return 2;
              return is_refused(ErrorCode::process_failed, "make a pipe: Operation not permitted",
                                [] {
                                  CheckpointerConfig config;
                                  config.process_config.executable = CKPTRING_DRAIN_PATH;
                                  AsyncSave(config, {}).ready();
                                });
            }),
            0);
}

}  // namespace
}  // namespace ckptring::save
