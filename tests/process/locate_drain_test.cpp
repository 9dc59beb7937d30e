#include "process/locate_drain.h"

#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace ckptring::process {
namespace {

class LocateDrain : public ::testing::Test {
 public:
  ~LocateDrain() override { ::unsetenv("CKPTRING_DRAIN"); }

 protected:
  LocateDrain() { ::unsetenv("CKPTRING_DRAIN"); }
};

TEST_F(LocateDrain, TakesTheConfiguredProgramFirst) {
  ::setenv("CKPTRING_DRAIN", "/bin/false", 1);
  EXPECT_EQ(locate_drain("/bin/true").path, "/bin/true");
}

TEST_F(LocateDrain, TakesTheEnvironmentsProgramNext) {
  ::setenv("CKPTRING_DRAIN", "/bin/false", 1);
  EXPECT_EQ(locate_drain("").path, "/bin/false");
}

TEST_F(LocateDrain, NeverLooksIntoPathOrTheCurrentFolder) {
  EXPECT_THROW(locate_drain("true"), Error);
  ::setenv("CKPTRING_DRAIN", "ckptring-drain", 1);
  EXPECT_THROW(locate_drain(""), Error);
}

TEST_F(LocateDrain, NamesThePlacesWhereItLooked) {
  // Beside this test program there is none.
  try {
    (void)locate_drain("");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::process_failed);
    EXPECT_NE(error.cause().find("/../libexec/ckptring/ckptring-drain"), std::string::npos);
    EXPECT_NE(error.cause().find("CKPTRING_DRAIN"), std::string::npos);
  }
}

TEST_F(LocateDrain, SaysWhyAConfiguredProgramIsOfNoUse) {
  try {
    (void)locate_drain("/nowhere/ckptring-drain");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.path(), "/nowhere/ckptring-drain");
    EXPECT_NE(error.cause().find("No such file"), std::string::npos);
  }
}

}  // namespace
}  // namespace ckptring::process
