// What a call throws.
#pragma once

#include <ckptring/error.h>
#include <gtest/gtest.h>

namespace ckptring::test {

/// Runs `call`, which must throw an Error, and returns it.
template <class Call>
Error error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no Error was thrown";
  return {ErrorCode::ok, "", "", ""};
}

}  // namespace ckptring::test
