#include "supervise/drain_program.h"

#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace ckptring::supervise {
namespace {

std::string path_of(const std::string& configured) {
  return DrainProgram(configured).executable().path;
}

class DrainProgramTest : public ::testing::Test {
 public:
  ~DrainProgramTest() override { ::unsetenv("CKPTRING_DRAIN"); }

 protected:
  DrainProgramTest() { ::unsetenv("CKPTRING_DRAIN"); }
};

TEST_F(DrainProgramTest, TakesTheConfiguredProgramFirst) {
  ::setenv("CKPTRING_DRAIN", "/bin/false", 1);
  EXPECT_EQ(path_of("/bin/true"), "/bin/true");
}

TEST_F(DrainProgramTest, TakesTheEnvironmentsProgramNext) {
  ::setenv("CKPTRING_DRAIN", "/bin/false", 1);
  EXPECT_EQ(path_of(""), "/bin/false");
}

TEST_F(DrainProgramTest, NeverLooksIntoPathOrTheCurrentFolder) {
  EXPECT_THROW(path_of("true"), Error);
  ::setenv("CKPTRING_DRAIN", "ckptring-drain", 1);
  EXPECT_THROW(path_of(""), Error);
}

TEST_F(DrainProgramTest, NamesThePlacesWhereItLooked) {
  // Beside this test program there is none.
  try {
    (void)path_of("");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::process_failed);
    EXPECT_NE(error.cause().find("/../libexec/ckptring/ckptring-drain"), std::string::npos);
    EXPECT_NE(error.cause().find("CKPTRING_DRAIN"), std::string::npos);
  }
}

TEST_F(DrainProgramTest, SaysWhyAConfiguredProgramIsOfNoUse) {
  try {
    (void)path_of("/nowhere/ckptring-drain");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.path(), "/nowhere/ckptring-drain");
    EXPECT_NE(error.cause().find("No such file"), std::string::npos);
  }
}

}  // namespace
}  // namespace ckptring::supervise
