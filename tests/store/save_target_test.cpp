#include "store/drive.h"
#include "store/on_disk.h"
#include "store/temporary_name.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace ckptring::store::test {
namespace {

SaveTarget target_at(const std::string& path, RankInfo rank = {}) {
  return make_target(system_files(), path, rank, 100);
}

ErrorCode refused(const std::string& path, RankInfo rank = {}) {
  return error_of([&] { (void)target_at(path, rank); }).code();
}

TEST(SaveTarget, NamesTheFileByItsRankAndHidesTheTemporary) {
  const TemporaryDirectory scratch;
  const SaveTarget target = target_at(scratch.path(), {3, 8});
  EXPECT_EQ(target.directory, scratch.path());
  EXPECT_EQ(target.final_name, "checkpoint_3.pt");
  EXPECT_TRUE(target.temporary_name.starts_with(".checkpoint_3.pt."));
  EXPECT_TRUE(target.temporary_name.ends_with(".tmp"));
  EXPECT_EQ(target.temporary_name.size(), std::string(".checkpoint_3.pt..tmp").size() + 32);
  EXPECT_EQ(target.missing_levels, 0U);
  EXPECT_EQ(target.total_bytes, 100U);
  EXPECT_NE(target.temporary_name, target_at(scratch.path(), {3, 8}).temporary_name);
}

TEST(SaveTarget, CountsTheDirectoriesThatAreMissing) {
  const TemporaryDirectory scratch;
  EXPECT_EQ(target_at(scratch / "a").missing_levels, 1U);
  EXPECT_EQ(target_at(scratch / "a/b/c").missing_levels, 3U);
  std::filesystem::create_directories(scratch / "a/b");
  EXPECT_EQ(target_at(scratch / "a/b/c").missing_levels, 1U);
}

TEST(SaveTarget, MakesThePathAbsoluteAndPlain) {
  const TemporaryDirectory scratch;
  EXPECT_EQ(target_at(scratch / "./a//b/.///").directory, scratch / "a/b");
  EXPECT_EQ(target_at(scratch / "a/../b").directory, scratch / "b");
  EXPECT_EQ(target_at(scratch / "a/../b").missing_levels, 1U);
  EXPECT_EQ(target_at(scratch / "a/..").missing_levels, 0U);
  EXPECT_EQ(target_at("/").directory, "/");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(scratch.path());
  EXPECT_EQ(target_at("a/b").directory, scratch / "a/b");
  std::filesystem::current_path(before);
}

TEST(SaveTarget, FollowsTheKernelThroughLinks) {
  const TemporaryDirectory scratch;
  std::filesystem::create_directories(scratch / "real/inner");
  std::filesystem::create_directory_symlink(scratch / "real/inner", scratch / "link");
  // "link/.." is "real", so nothing may be shortened here.
  const SaveTarget target = target_at(scratch / "link/../x");
  EXPECT_EQ(target.directory, scratch / "link/../x");
  EXPECT_EQ(target.missing_levels, 1U);
}

TEST(SaveTarget, RefusesWhatCanNeverWork) {
  const TemporaryDirectory scratch;
  EXPECT_EQ(refused(""), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(std::string("a\0b", 3)), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(scratch / std::string(256, 'n')), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(scratch / ("missing/" + std::string(256, 'n'))), ErrorCode::invalid_argument);
  std::string deep = scratch.path();
  while (deep.size() < 4096) deep += "/d";
  EXPECT_EQ(refused(deep), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(scratch.path(), {-1, 4}), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(scratch.path(), {4, 4}), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(scratch.path(), {0, 0}), ErrorCode::invalid_argument);
}

TEST(SaveTarget, RefusesAPathThatIsAFileAndSaysWhich) {
  const TemporaryDirectory scratch;
  write_text(scratch / "file", "text");
  const Error error = error_of([&] { (void)target_at(scratch / "file"); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(std::string(error.what()).find(scratch / "file is a file"), std::string::npos)
      << error.what();
  EXPECT_EQ(refused(scratch / "file/below"), ErrorCode::invalid_argument);
}

TEST(SaveTarget, NamesALinkThatLeadsToNothing) {
  const TemporaryDirectory scratch;
  std::filesystem::create_symlink("nothing", scratch / "link");
  std::filesystem::create_symlink("link", scratch / "further");
  for (const char* path : {"link", "link/a/b", "further", "further/a"}) {
    const Error error = error_of([&] { (void)target_at(scratch / path); });
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    const std::string link = scratch / (path[0] == 'f' ? "further" : "link");
    EXPECT_NE(std::string(error.what()).find(link + " is a symbolic link"), std::string::npos)
        << error.what();
  }
}

TEST(SaveTarget, KnowsTheFileSystemOfItsDirectory) {
  const TemporaryDirectory scratch;
  const auto device_of = [](const std::string& path) {
    struct ::stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_dev;
  };
  std::filesystem::create_directory_symlink("/proc/self", scratch / "link");
  EXPECT_NE(device_of(scratch.path()), device_of("/proc"));
  EXPECT_EQ(target_at(scratch.path()).device, device_of(scratch.path()));
  EXPECT_EQ(target_at(scratch / "new/a").device, device_of(scratch.path()));
  EXPECT_EQ(target_at(scratch / "link/new").device, device_of("/proc"));
}

TEST(SaveTarget, RefusesADirectoryUnderTheFinalName) {
  const TemporaryDirectory scratch;
  std::filesystem::create_directories(scratch / "checkpoint_0.pt");
  EXPECT_EQ(refused(scratch.path()), ErrorCode::invalid_argument);
}

TEST(SaveTarget, MayHaveAnyVisibleNameThatATemporarysLeavesRoomFor) {
  const TemporaryDirectory scratch;
  const auto name_of = [&](const std::string& name) {
    return make_target(system_files(), scratch.path(), {3, 4}, 100, name).final_name;
  };
  const std::string longest(217, 'n');
  EXPECT_EQ(name_of(""), "checkpoint_3.pt");
  EXPECT_EQ(name_of("__0_0.distcp"), "__0_0.distcp");
  EXPECT_EQ(name_of(longest), longest);
  EXPECT_EQ(new_temporary_name(longest).size(), 255u);
  for (const std::string& other : {std::string("."), std::string(".."), std::string(".hidden"),
                                   std::string("a/b"), std::string("a\0b", 3), longest + 'n'}) {
    const Error error = error_of([&] { (void)name_of(other); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << other;
    EXPECT_THAT(error.what(), testing::HasSubstr("no file can be saved under the name")) << other;
  }
}

TEST(TemporaryName, TellsItsOwnNamesFromOthers) {
  const std::string id(32, 'a');
  EXPECT_EQ(final_name_of_temporary(".checkpoint_12.pt." + id + ".tmp"), "checkpoint_12.pt");
  EXPECT_EQ(final_name_of_temporary(new_temporary_name("checkpoint_7.pt")), "checkpoint_7.pt");
  EXPECT_EQ(final_name_of_temporary(new_temporary_name("__0_0.distcp")), "__0_0.distcp");
  for (const std::string& other :
       {"checkpoint_1.pt." + id + ".tmp", ".checkpoint_1.pt." + id, "..model.pt." + id + ".tmp",
        ".." + id + ".tmp", ".checkpoint_1.pt." + id.substr(1) + ".tmp",
        ".checkpoint_1.pt." + std::string(32, 'G') + ".tmp", std::string(".tmp"), std::string()}) {
    EXPECT_EQ(final_name_of_temporary(other), std::nullopt) << other;
  }
}

TEST(TemporaryName, ReadsTheRankOfAFinalName) {
  EXPECT_EQ(rank_of_final_name("checkpoint_0.pt"), 0);
  EXPECT_EQ(rank_of_final_name("checkpoint_120.pt"), 120);
  for (const char* other : {"checkpoint_.pt", "checkpoint_01.pt", "checkpoint_-1.pt",
                            "checkpoint_1.pt.bak", "checkpoint_99999999999.pt", "model_1.pt"}) {
    EXPECT_EQ(rank_of_final_name(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace ckptring::store::test
