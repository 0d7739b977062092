#include "compress/core/text.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/progress.h"

namespace slmc {
namespace {

bool is_refused(const std::string& text) {
  try {
    parse_bytes(text, "max-ram");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("--max-ram"), std::string::npos);
    return true;
  }
  return false;
}

TEST(Progress, RateAndTimeLeftAreOfWhatWasDoneSinceTheBeginning) {
  EXPECT_EQ(progress_text({.total = 1000, .done = 0, .known = 0, .seconds = 0}, "steps"),
            "0/1.00k steps");
  EXPECT_EQ(progress_text({.total = 900, .done = 400, .known = 0, .seconds = 20}, "steps"),
            "400/900 steps, 20/s, 25 s left");
  EXPECT_EQ(progress_text({.total = 900, .done = 400, .known = 300, .seconds = 20}, "steps"),
            "400/900 steps, 5.00/s, 1 min 40 s left");
  EXPECT_EQ(progress_text({.total = 0, .done = 30, .known = 0, .seconds = 2}, "steps"),
            "30 steps, 15/s");
}

TEST(ParseBytes, KnowsDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_bytes("1234", "x"), 1234u);
  EXPECT_EQ(parse_bytes("700MB", "x"), 700000000u);
  EXPECT_EQ(parse_bytes("700 mb", "x"), 700000000u);
  EXPECT_EQ(parse_bytes("1.5GiB", "x"), 1610612736u);
  EXPECT_EQ(parse_bytes("2k", "x"), 2000u);
  EXPECT_EQ(parse_bytes("0", "x"), 0u);
}

TEST(ParseBytes, RefusesTheRest) {
  for (const char* text :
       {"", "MB", "-1MB", "1XB", "1MBB", "nan", "inf", "1e30GB", "1..5GB", "0x10", "1 2"})
    EXPECT_TRUE(is_refused(text)) << text;
}

TEST(HumanText, ShowsThreeDigits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1500000), "1.50 MB");
  EXPECT_EQ(human_bytes(16793976), "16.8 MB");
  EXPECT_EQ(human_bytes(999999), "1.00 MB");
  EXPECT_EQ(human_count(8390000), "8.39M");
  EXPECT_EQ(human_count(12), "12");
  EXPECT_EQ(human_count(1240000000), "1.24B");
  EXPECT_EQ(human_seconds(0.26), "0.3 s");
  EXPECT_EQ(human_seconds(45), "45 s");
  EXPECT_EQ(human_seconds(200), "3 min 20 s");
  EXPECT_EQ(human_seconds(59.7), "1 min 0 s");
  EXPECT_EQ(human_seconds(3 * 3600 + 300), "3 h 5 min");
}

TEST(Nearest, FindsTyposAndNothingFarAway) {
  const std::vector<std::string> names = {"scheme", "seed", "threads", "output"};
  EXPECT_EQ(nearest("schme", names), "scheme");
  EXPECT_EQ(nearest("thread", names), "threads");
  EXPECT_EQ(nearest("calibration", names), "");
  EXPECT_EQ(nearest("x", {}), "");
  EXPECT_EQ(did_you_mean("sede", names), "; did you mean 'seed'?");
  EXPECT_EQ(did_you_mean("wholly-different", names), "");
}

TEST(Table, AlignsColumnsByCharactersNotBytes) {
  EXPECT_EQ(table({"name", "n"}, {{"é", "1"}, {"long name", "22"}}, {false, true}),
            "name        n\n---------  --\né           1\nlong name  22\n");
}

TEST(Join, PutsSeparatorsBetween) {
  EXPECT_EQ(join({}, ", "), "");
  EXPECT_EQ(join({"a", "b"}, ", "), "a, b");
  EXPECT_EQ(shape_text({256, 768}), "[256, 768]");
  EXPECT_EQ(fixed(1.005, 1), "1.0");
}

}  // namespace
}  // namespace slmc
