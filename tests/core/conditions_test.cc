#include "compress/core/conditions.h"

#include <gtest/gtest.h>

namespace slmc {
namespace {

const Json kRun = {{"options", {{"lr", 0.1}, {"on_policy", {{"share", 0.5}}}}}, {"seed", 1}};

TEST(Conditions, OfTheSameRunDoNotDiffer) {
  EXPECT_EQ(conditions_difference(kRun, kRun), "");
  EXPECT_EQ(conditions_difference({{"a", 1}, {"b", {{"c", 2}, {"d", 3}}}},
                                  {{"b", {{"d", 3}, {"c", 2}}}, {"a", 1}}),
            "")
      << "the order of keys says nothing";
}

TEST(Conditions, NameWhatDiffersHoweverDeep) {
  Json now = kRun;
  now["options"]["lr"] = 0.2;
  EXPECT_EQ(conditions_difference(kRun, now), "lr was 0.1 and is 0.2");
  now = kRun;
  now["options"]["warmup"] = 3;
  EXPECT_EQ(conditions_difference(kRun, now), "warmup was absent and is 3");
}

TEST(Conditions, NameWhatIsGone) {
  Json now = kRun;
  now["options"].erase("on_policy");
  EXPECT_EQ(conditions_difference(kRun, now), "on_policy was {\"share\":0.5} and is absent");
}

/// What stands behind an object that only lost a key is compared too.
TEST(Conditions, GoOnBehindAnObjectThatIsTheSame) {
  const Json then = {{"options", {{"a", 1}, {"b", 2}}}, {"seed", 1}};
  EXPECT_EQ(conditions_difference(then, {{"options", {{"b", 2}, {"a", 1}}}, {"seed", 2}}),
            "seed was 1 and is 2");
}

}  // namespace
}  // namespace slmc
