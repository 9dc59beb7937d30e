#include <ckptring/error.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace ckptring {
namespace {

TEST(Error, ReadsAsOneSentence) {
  EXPECT_STREQ(Error(ErrorCode::io, "write", "/x/y", "the disk is tired").what(),
               "write /x/y: the disk is tired");
  EXPECT_STREQ(Error(ErrorCode::io, "write", "", "why").what(), "write: why");
  EXPECT_STREQ(Error(ErrorCode::io, "", "/x", "why").what(), "/x: why");
  EXPECT_STREQ(Error(ErrorCode::io, "", "", "why").what(), "why");
}

TEST(Error, KeepsItsPartsForPrograms) {
  const Error error(ErrorCode::no_space, "reserve", "/x", "full", ENOSPC);
  EXPECT_EQ(error.code(), ErrorCode::no_space);
  EXPECT_EQ(error.operation(), "reserve");
  EXPECT_EQ(error.path(), "/x");
  EXPECT_EQ(error.cause(), "full");
  EXPECT_EQ(error.errno_value(), ENOSPC);
}

TEST(Error, OfASystemCallHasItsNumberItsTextAndAFittingCode) {
  const Error error = Error::from_errno(ENOENT, "open", "/nowhere");
  EXPECT_STREQ(error.what(), "open /nowhere: No such file or directory");
  EXPECT_EQ(error.errno_value(), ENOENT);
  const auto code = [](int number) { return Error::from_errno(number, "", "").code(); };
  for (const int number : {ENOSPC, EDQUOT, EFBIG}) EXPECT_EQ(code(number), ErrorCode::no_space);
  for (const int number : {EACCES, EPERM, EROFS}) EXPECT_EQ(code(number), ErrorCode::permission);
  EXPECT_EQ(code(ENOENT), ErrorCode::not_found);
  EXPECT_EQ(code(ENOMEM), ErrorCode::out_of_memory);
  EXPECT_EQ(code(EIO), ErrorCode::io);
}

TEST(Error, EveryCodeHasANameOfItsOwn) {
  EXPECT_EQ(to_string(ErrorCode::ok), "ok");
  EXPECT_EQ(to_string(ErrorCode::no_space), "no_space");
  EXPECT_EQ(to_string(ErrorCode::damaged), "damaged");
  EXPECT_EQ(to_string(ErrorCode::outcome_unknown), "outcome_unknown");
  EXPECT_EQ(to_string(ErrorCode::hook_failed), "hook_failed");
  EXPECT_EQ(to_string(ErrorCode::device_failed), "device_failed");
  std::set<std::string_view> names;
  const int last = static_cast<int>(ErrorCode::device_failed);
  for (int code = 0; code <= last; ++code) names.insert(to_string(static_cast<ErrorCode>(code)));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(last) + 1);
  EXPECT_EQ(names.count("unknown"), 0u);
}

TEST(Error, ACodeFromADamagedRingIsUnknownAndHarmless) {
  EXPECT_EQ(to_string(static_cast<ErrorCode>(-1)), "unknown");
  EXPECT_EQ(to_string(static_cast<ErrorCode>(12345)), "unknown");
}

}  // namespace
}  // namespace ckptring
