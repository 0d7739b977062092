#include "recipes/expect.h"

#include <gtest/gtest.h>

#include "tests/recipes/fake_stage.h"

namespace slmc {
namespace {

const Json kReport = Json::parse(
    R"({"perplexity": 11.5, "tokens": 100, "protocol": "window", "ok": true, "unknown": null,
                                     "against": {"kld_mean": 0.04}, "tasks": [{"accuracy": 0.9}], "by.group": 3})");
const Json kOther = Json::parse(R"({"perplexity": 10.0})");

ExpectationResult check(const std::string& path, const std::string& condition) {
  const RecipeNode root = parse_yaml(cat(path, ": ", condition), "r.yaml");
  return check_expectation(
      parse_expectations(root, "r.yaml").at(0), kReport,
      [](const std::string& name) { return name == "base" ? &kOther : nullptr; });
}

bool passes(const std::string& path, const std::string& condition) {
  return check(path, condition).passed;
}

TEST(Expect, ComparesNumbers) {
  EXPECT_TRUE(passes("perplexity", "'< 12'"));
  EXPECT_FALSE(passes("perplexity", "'< 11.5'"));
  EXPECT_TRUE(passes("perplexity", "'<= 11.5'"));
  EXPECT_TRUE(passes("perplexity", "'>= 11.5'"));
  EXPECT_TRUE(passes("perplexity", "'>11'"));
  EXPECT_FALSE(passes("perplexity", "'> 11.5'"));
  EXPECT_TRUE(passes("tokens", "'== 100'"));
  EXPECT_TRUE(passes("tokens", "100"));
  EXPECT_FALSE(passes("tokens", "101"));
  EXPECT_TRUE(passes("tokens", "'!= 101'"));
}

TEST(Expect, RangesIncludeTheirBounds) {
  EXPECT_TRUE(passes("perplexity", "11.5..12"));
  EXPECT_TRUE(passes("perplexity", "11 .. 11.5"));
  EXPECT_TRUE(passes("perplexity", "[11, 12]"));
  EXPECT_FALSE(passes("perplexity", "[12, 13]"));
}

TEST(Expect, ReachesInsideByDottedPath) {
  EXPECT_TRUE(passes("against.kld_mean", "'< 0.05'"));
  EXPECT_TRUE(passes("tasks.0.accuracy", "'>= 0.9'"));
  EXPECT_TRUE(passes("by.group", "3"));
  const Json dotted = {{"tasks", {{"v2.jsonl", {{"accuracy", 1}}}}}};
  ASSERT_NE(at_path(dotted, "tasks.v2.jsonl.accuracy"), nullptr);
  EXPECT_EQ(*at_path(dotted, "tasks.v2.jsonl.accuracy"), 1);
  EXPECT_EQ(at_path(dotted, "tasks.v2.accuracy"), nullptr);
}

TEST(Expect, ComparesWords) {
  EXPECT_TRUE(passes("protocol", "window"));
  EXPECT_FALSE(passes("protocol", "llama.cpp"));
  EXPECT_TRUE(passes("protocol", "'!= llama.cpp'"));
  EXPECT_TRUE(passes("ok", "true"));
}

TEST(Expect, ComparesWithAnotherStage) {
  EXPECT_FALSE(passes("perplexity", "'< @base.perplexity'"));
  EXPECT_TRUE(passes("perplexity", "'< @base.perplexity * 1.2'"));
  EXPECT_EQ(check("perplexity", "'< @base.perplexity * 1.2'").expected,
            "< @base.perplexity * 1.2 = 12");
  EXPECT_NE(test::refusal([] {
              check("perplexity", "'< @none.perplexity'");
            }).find("no stage before is called 'none'"),
            std::string::npos);
}

TEST(Expect, RefusesWhatIsNoCondition) {
  for (const char* condition : {"'=< 12'", "'=12'", "'!12'", "'< @base.perplexity + 1'"}) {
    EXPECT_NE(test::refusal([&] { check("perplexity", condition); }), "") << condition;
  }
}

TEST(Expect, WhatIsAbsentFailsAndNamesTheNearest) {
  const ExpectationResult result = check("perplexty", "'< 12'");
  EXPECT_FALSE(result.passed);
  EXPECT_NE(result.found.find("did you mean 'perplexity'?"), std::string::npos) << result.found;
  EXPECT_FALSE(passes("unknown", "'< 12'"));
  EXPECT_EQ(check("unknown", "'< 12'").found, "not measured");
  EXPECT_FALSE(passes("tasks.5.accuracy", "'< 12'"));
  EXPECT_FALSE(passes("protocol", "'< 12'"));
}

TEST(Expect, ConditionsThatCannotBeReadAreRefusedWithTheirPosition) {
  for (const char* condition : {"'< twelve'", "'<'", "'1..x'", "'< @base'", "'< @base.p * y'",
                                "{a: 1}", "[1, 2, 3]", "''"}) {
    const std::string message = test::refusal([&] { check("perplexity", condition); });
    EXPECT_NE(message.find("r.yaml:1:"), std::string::npos) << condition << ": " << message;
  }
}

}  // namespace
}  // namespace slmc
