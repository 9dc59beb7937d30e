// ckptring.json made to do harm.
#include "plan/checkpoint_json.h"
#include "support/allocation_meter.h"

#include <ckptring/error.h>

#include <gtest/gtest.h>

#include <cstddef>
#include <string>

namespace ckptring::plan {
namespace {

TEST(HostileJson, TakesMemoryInProportion) {
  constexpr std::size_t kSize = 4 << 20;
  const auto repeated = [](const std::string& part) {
    std::string out;
    while (out.size() + part.size() <= kSize) out += part;
    return out;
  };
  const std::string good = R"("format_version":1,"rank":0,"world_size":1)";
  for (const std::string& json : {
           repeated("["),
           repeated("{\"a\":"),
           "{" + good + R"(,"x":)" + repeated("[") + "}",
           "{" + good + R"(,"x":[)" + repeated("[],") + "[]]}",
           "{" + good + R"(,"x":[)" + repeated("{},") + "{}]}",
           "{" + good + R"(,"x":[)" + repeated("1,") + "1]}",
           "{" + good + R"(,"metadata":[)" + repeated("[],") + "[]]}",
           "{" + good + R"(,"metadata":{"a":[)" + repeated("[],") + "[]]}}",
           "{" + good + R"(,"metadata":{)" + repeated("\"a\":1,") + "\"b\":2}}",
           "{" + good + R"(,"metadata":{)" + repeated("\"a\":null,") + "\"b\":2}}",
           "{" + repeated("\"a\":1,") + good + "}",
           "{" + repeated("\"rank\":[],") + good + "}",
       }) {
    std::size_t peak = 0;
    {
      const test::AllocationMeter meter;
      try {
        (void)from_json(json, "/file.pt");
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::damaged) << error.what();
      }
      peak = meter.peak();
    }
    EXPECT_LE(peak, 8 * json.size()) << json.substr(0, 100);
  }
}

}  // namespace
}  // namespace ckptring::plan
