#include "save/save_ids.h"

#include "support/launch_environment.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>

namespace ckptring::save {
namespace {

using test::LaunchEnvironment;

TEST(SaveIds, AreTheSameOnAllRanksAndOthersForEachAttempt) {
  std::set<std::string> met;
  for (const char* const restart : {"0", "1"}) {
    const LaunchEnvironment launched{{"GROUP_WORLD_SIZE", "1"},
                                     {"TORCHELASTIC_RUN_ID", "blue"},
                                     {"TORCHELASTIC_RESTART_COUNT", restart}};
    SaveIds first({0, 2});
    SaveIds second({1, 2});
    for (const auto& [path, step] :
         {std::pair("run/step_1", 1), std::pair("run/step_2", 2), std::pair("run/step_2", 2),
          std::pair("run/step_2", 3), std::pair("run/step_1", 1)}) {
      const auto id = first.next(path, step);
      ASSERT_TRUE(id);
      // Mounted elsewhere.
      EXPECT_EQ(second.next(std::string("/mnt/") + path + "/", step), id);
      EXPECT_TRUE(met.insert(to_string(*id)).second) << path;
    }
  }
}

TEST(SaveIds, DoNotCountWhatOnlyOneRankSavesElsewhere) {
  const LaunchEnvironment launched{{"GROUP_WORLD_SIZE", "1"},
                                   {"TORCHELASTIC_RUN_ID", "blue"},
                                   {"TORCHELASTIC_RESTART_COUNT", "0"}};
  SaveIds first({0, 2});
  SaveIds second({1, 2});
  (void)first.next("export/best", {});
  EXPECT_EQ(first.next("run/step_1", 1), second.next("run/step_1", 1));
}

TEST(SaveIds, AreNeededByNoJobOfOneRankAndHadByNoneWithoutAName) {
  {
    const LaunchEnvironment launched{{"GROUP_WORLD_SIZE", "1"},
                                     {"TORCHELASTIC_RUN_ID", "blue"},
                                     {"TORCHELASTIC_RESTART_COUNT", "0"}};
    EXPECT_EQ(SaveIds({0, 1}).next("run/step_1", 1), std::nullopt);
  }
  const LaunchEnvironment nobody;
  EXPECT_EQ(SaveIds({0, 2}).next("run/step_1", 1), std::nullopt);
}

TEST(SaveIds, AreWordsAndBack) {
  const SaveId id{{0x00, 0xff, 0x17, 0xa0}};
  const std::string words = "00ff17a0" + std::string(24, '0');
  EXPECT_EQ(to_string(id), words);
  EXPECT_EQ(save_id_from(words), id);
  for (const std::string& other :
       {std::string(), words + "0", words.substr(1), "G" + words.substr(1), "A" + words.substr(1),
        "+" + words.substr(1)}) {
    EXPECT_EQ(save_id_from(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace ckptring::save
