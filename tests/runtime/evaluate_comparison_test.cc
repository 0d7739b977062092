#include "compress/runtime/evaluate_comparison.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace slmc {
namespace {

Json eval_report(double size, double kld) {
  return {{"stage", "eval"},
          {"options", {{"size_bytes", 1}, {"bits_per_weight", 1}}},
          {"model", "out/<q4>.gguf"},
          {"tokens", 4096},
          {"context", 512},
          {"protocol", "window"},
          {"activations", "f32"},
          {"perplexity", 9.5},
          {"perplexity_se", 0.1},
          {"size_bytes", size},
          {"bits_per_weight", 4.5},
          {"parameters", 8.4e6},
          {"against",
           {{"perplexity", 9.4}, {"kld_mean", kld}, {"kld_se", 0.001}, {"top1_agreement", 0.93}}},
          {"tasks",
           {{"test",
             {{"kind", "fields"},
              {"accuracy", 0.9},
              {"accuracy_low", 0.85},
              {"accuracy_high", 0.94},
              {"f1", 0.8},
              {"f1_low", 0.7},
              {"f1_high", 0.9}}}}}};
}

TEST(Comparison, FindsEveryModelOfAReport) {
  const Json recipe = {
      {"recipe", "demo"},
      {"stages",
       {{{"name", "teacher"}, {"report", eval_report(1e7, 0.0)}},
        {{"name", "file"},
         {"report", {{"stage", "quantize"}, {"size_bytes", 5e6}, {"bits_per_weight", 4.5}}}},
        {{"name", "small"}, {"report", eval_report(5e6, 0.02)}}}}};
  const std::vector<ComparedModel> models = models_of_report(recipe, "report.json");
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[0].name, "teacher");
  EXPECT_EQ(models[1].name, "small");
  EXPECT_EQ(models[1].size_bytes, 5e6);
  EXPECT_EQ(models[1].kld, 0.02);
  EXPECT_EQ(models[1].protocol, "window 512, 4096 tokens, f32");
  ASSERT_EQ(models[1].tasks.size(), 2u);
  EXPECT_EQ(models[1].tasks[1].name, "test: f1");
  EXPECT_EQ(models_of_report(eval_report(5e6, 0.02), "report.json")[0].name, "out/<q4>.gguf");
  EXPECT_THROW(models_of_report(Json{{"stage", "convert"}}, "x.json"), Error);
}

TEST(Comparison, TableLeavesOutWhatNobodyHasAndWarnsOfProtocols) {
  std::vector<ComparedModel> models = models_of_report(eval_report(5e6, 0.02), "a");
  models.push_back(models[0]);
  const std::string text = comparison_table(models);
  EXPECT_NE(text.find("0.02000 ± 0.00100"), std::string::npos);
  EXPECT_NE(text.find("90.0 (85.0 to 94.0)"), std::string::npos);
  EXPECT_EQ(text.find("tokens/s"), std::string::npos);
  EXPECT_EQ(text.find("cannot be compared"), std::string::npos);
  models[1].protocol = "llama.cpp 512, 4096 tokens, f32";
  EXPECT_NE(comparison_table(models).find("cannot be compared"), std::string::npos);
}

TEST(Comparison, PageIsSelfContainedAndEscaped) {
  std::vector<ComparedModel> models = models_of_report(eval_report(5e6, 0.02), "a");
  models.push_back(models_of_report(eval_report(9e6, 0.001), "b")[0]);
  models.push_back({.name = "sizes only", .size_bytes = 1e6});
  const std::string page = comparison_html(models, "A & B");
  for (const char* outside : {"http", "src=", "href=", "@import", "<script"})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  EXPECT_NE(page.find("&lt;q4&gt;.gguf"), std::string::npos);
  EXPECT_EQ(page.find("<q4>"), std::string::npos);
  size_t circles = 0;
  for (size_t at = page.find("<circle"); at != std::string::npos; at = page.find("<circle", at + 1))
    ++circles;
  EXPECT_EQ(circles, 2u);
  EXPECT_EQ(page.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace slmc
