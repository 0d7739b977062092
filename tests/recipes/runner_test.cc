// Running recipes with stages that cost nothing: order, gates, resume, and what is left on disk.
#include "recipes/runner.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "formats/hub_cache.h"
#include "recipes/journal.h"
#include "recipes/stage_run.h"
#include "tests/recipes/fake_stage.h"

namespace slmc {
namespace {

using test::read_file;
using test::refusal;

class RunnerTest : public ::testing::Test {
 protected:
  Json run(const std::string& text, const Context& context = {}) {
    folder_.write("r.yaml", text);
    Recipe recipe = read_recipe(folder_.file("r.yaml"), table_, {});
    recipe.output = folder_.file("out");
    log_.runs.clear();
    out_.str("");
    Context copy = context;
    return context.dry_run.empty() ? run_recipe(recipe, table_, copy, out_)
                                   : plan_recipe(recipe, table_, copy, out_);
  }
  static Context resuming() {
    Context context;
    context.resume = true;
    return context;
  }
  static Context forcing() {
    Context context;
    context.force = true;
    return context;
  }
  std::vector<std::string> ran() const {
    std::vector<std::string> names;
    for (const std::string& path : log_.runs)
      names.push_back(std::filesystem::path(path).filename().string());
    return names;
  }

  const std::string kTwo =
      "stages:\n  - fake: {output: a, text: one}\n    name: first\n  - fake: {output: b, input: "
      "'@first', text: two}\n    name: second\n";
  test::FakeLog log_;
  StageTable table_ = test::fake_table(log_);
  test::ScratchFolder folder_;
  std::ostringstream out_;
};

using Names = std::vector<std::string>;

TEST_F(RunnerTest, RunsInOrderAndLeavesReports) {
  const Json report = run(kTwo);
  EXPECT_TRUE(report["passed"].get<bool>());
  EXPECT_EQ(ran(), (Names{"a", "b"}));
  EXPECT_EQ(read_file(folder_.file("out/b")), "twoone");
  const Json stored = Json::parse(read_file(folder_.file("out/report.json")));
  EXPECT_EQ(stored["stages"][1]["report"]["options"]["text"], "two");
  EXPECT_TRUE(std::filesystem::exists(folder_.file("out/a.report.json")));
  EXPECT_NE(out_.str().find("second"), std::string::npos);
}

TEST_F(RunnerTest, ADeviceIsForTheStagesThatCanUseIt) {
  Context context;
  context.device = "cuda";
  EXPECT_NE(refusal([&] { run(kTwo, context); }, ExitCode::kUnsupported)
                .find("every stage of this recipe computes on the cpu only"),
            std::string::npos);
  std::string with_one = kTwo;
  with_one.replace(with_one.find("text: two"), 9, "text: two, fast: true");
  run(with_one, context);
  EXPECT_EQ(log_.devices, (Names{"cpu", "cuda"}));
}

TEST_F(RunnerTest, RefusesAFolderThatHoldsAnEarlierRun) {
  run(kTwo);
  EXPECT_NE(refusal([&] { run(kTwo); }).find("--resume goes on with it, --force starts over"),
            std::string::npos);
  Context force;
  force.force = true;
  run(kTwo, force);
  EXPECT_EQ(ran(), (Names{"a", "b"}));
}

TEST_F(RunnerTest, ResumeKeepsWhatIsUnchanged) {
  run(kTwo);
  const Json report = run(kTwo, resuming());
  EXPECT_EQ(ran(), Names{});
  EXPECT_TRUE(report["stages"][0]["skipped"].get<bool>());
  EXPECT_EQ(report["stages"][1]["report"]["options"]["text"], "two");
}

TEST_F(RunnerTest, ResumeRunsAStageWhoseOptionsChangedAndThoseThatReadIt) {
  run(kTwo);
  std::string changed = kTwo;
  changed.replace(changed.find("one"), 3, "uno");
  run(changed, resuming());
  EXPECT_EQ(ran(), (Names{"a", "b"}));
  EXPECT_EQ(read_file(folder_.file("out/b")), "twouno");
  EXPECT_FALSE(log_.last_resume) << "options changed, so nothing half done may be gone on with";
}

TEST_F(RunnerTest, ResumeRunsOnlyTheLaterStageWhenOnlyItChanged) {
  run(kTwo);
  std::string changed = kTwo;
  changed.replace(changed.find("two"), 3, "due");
  run(changed, resuming());
  EXPECT_EQ(ran(), Names{"b"});
}

TEST_F(RunnerTest, ResumeNoticesChangedInputs) {
  folder_.write("in.txt", "x");
  const std::string recipe = "stages:\n  - fake: {output: a, input: in.txt}\n";
  run(recipe);
  run(recipe, resuming());
  EXPECT_EQ(ran(), Names{});
  folder_.write("in.txt", "y");
  run(recipe, resuming());
  EXPECT_EQ(ran(), Names{"a"});
}

TEST_F(RunnerTest, ModelsOfTheCacheAreHashedWhereTheyLie) {
  const std::string snapshot = folder_.file("models--acme--tiny/snapshots/abc");
  std::filesystem::create_directories(snapshot);
  folder_.write("models--acme--tiny/snapshots/abc/config.json", "{}");
  test::FakeStage stage(log_);
  stage.input_ = "acme/tiny";
  set_hub_cache(folder_.path());
  const Json hashes = hash_inputs(stage);
  set_hub_cache("");
  ASSERT_TRUE(hashes.contains(snapshot)) << hashes;
  EXPECT_EQ(hashes[snapshot], hash_path(snapshot));
}

TEST_F(RunnerTest, ResumeNoticesAChangedOrMissingOutput) {
  run(kTwo);
  std::filesystem::remove(folder_.file("out/b"));
  run(kTwo, resuming());
  EXPECT_EQ(ran(), Names{"b"});
  folder_.write("out/b", "spoilt");
  run(kTwo, resuming());
  EXPECT_EQ(ran(), Names{"b"});
  EXPECT_EQ(read_file(folder_.file("out/b")), "twoone");
}

TEST_F(RunnerTest, ResumeIsPassedToAHalfDoneStage) {
  log_.throw_in = "b";
  const std::string message = refusal([&] { run(kTwo); }, ExitCode::kResources);
  EXPECT_NE(message.find("r.yaml:4: stage 'second': the disk is full"), std::string::npos)
      << message;
  log_.throw_in.clear();
  run(kTwo, resuming());
  EXPECT_EQ(ran(), Names{"b"});
  EXPECT_TRUE(log_.last_resume);
}

TEST_F(RunnerTest, AMissedThresholdStopsTheRecipe) {
  const Json report =
      run("stages:\n  - fake: {output: a, score: 5}\n    expect: {score: '< 6', against.kld_mean: "
          "'< 0.01'}\n  - fake: {output: b}\n");
  EXPECT_FALSE(report["passed"].get<bool>());
  EXPECT_EQ(ran(), Names{"a"});
  EXPECT_NE(out_.str().find("FAILED against.kld_mean: expected < 0.01, found 0.05"),
            std::string::npos)
      << out_.str();
  EXPECT_NE(out_.str().find("ok     score: expected < 6, found 5"), std::string::npos)
      << out_.str();
  EXPECT_FALSE(Json::parse(read_file(folder_.file("out/report.json")))["passed"].get<bool>());
}

TEST_F(RunnerTest, AThresholdIsJudgedAgainOnResume) {
  run(kTwo);
  const Json report = run(kTwo + "    expect: {score: '> 50'}\n", resuming());
  EXPECT_EQ(ran(), Names{});
  EXPECT_FALSE(report["passed"].get<bool>());
}

TEST_F(RunnerTest, AStageMayBeAllowedToFail) {
  const Json report =
      run("stages:\n  - fake: {output: a}\n    allow_failure: true\n    expect: {score: '> 6'}\n  "
          "- fake: {output: b}\n");
  EXPECT_TRUE(report["passed"].get<bool>());
  EXPECT_FALSE(report["stages"][0]["passed"].get<bool>());
  EXPECT_EQ(ran(), (Names{"a", "b"}));
}

TEST_F(RunnerTest, ProblemsThatCanBeKnownAreFoundBeforeAnythingRuns) {
  const std::string message = refusal(
      [&] { run("stages:\n  - fake: {output: a}\n  - fake: {output: b, input: missing.txt}\n"); },
      ExitCode::kBadInput);
  EXPECT_NE(message.find("r.yaml:3: stage 'fake-2'"), std::string::npos) << message;
  EXPECT_EQ(ran(), Names{});
}

TEST_F(RunnerTest, DryRunPlansWhatItCanAndWritesNothing) {
  Context dry;
  dry.dry_run = "plan";
  const Json plans = run(kTwo, dry);
  EXPECT_EQ(plans["stages"][0]["plan"]["stage"], "fake");
  EXPECT_EQ(plans["stages"][1]["waits_for"], Json::array({"first"}));
  EXPECT_EQ(folder_.names(), Names{"r.yaml"});
}

TEST_F(RunnerTest, ADamagedJournalIsRefusedAndForceReplacesIt) {
  run(kTwo);
  folder_.write("out/journal.json", "{\"stages\": {\"first\": 3}}");
  EXPECT_NE(refusal([&] { run(kTwo, resuming()); }, ExitCode::kBadInput).find("journal.json"),
            std::string::npos);
  run(kTwo, forcing());
  EXPECT_EQ(ran(), (Names{"a", "b"}));
  run(kTwo, resuming());
  EXPECT_EQ(ran(), Names{});
}

TEST_F(RunnerTest, WhatTheRecipeDidNotWriteIsNeverReplacedWithoutForce) {
  std::filesystem::create_directories(folder_.file("out"));
  folder_.write("out/b", "mine");
  const std::string exists = cat(folder_.file("out/b"), ": exists");
  EXPECT_NE(refusal([&] { run(kTwo); }).find(exists), std::string::npos);
  EXPECT_EQ(ran(), Names{}) << "it is known before anything runs";
  EXPECT_NE(refusal([&] { run(kTwo, resuming()); }).find(exists), std::string::npos);
  EXPECT_EQ(read_file(folder_.file("out/b")), "mine");
  // A stage that the journal knows, but another output.
  std::filesystem::remove(folder_.file("out/b"));
  run(kTwo);
  folder_.write("out/c", "mine");
  std::string changed = kTwo;
  changed.replace(changed.find("output: b"), 9, "output: c");
  EXPECT_NE(refusal([&] { run(changed, resuming()); }).find("out/c: exists"), std::string::npos);
  EXPECT_EQ(read_file(folder_.file("out/c")), "mine");
}

TEST_F(RunnerTest, AReportThatIsNotARecipesIsNotReplaced) {
  std::filesystem::create_directories(folder_.file("out"));
  folder_.write("out/report.json", "mine");
  EXPECT_NE(refusal([&] { run(kTwo); }).find("report.json: exists"), std::string::npos);
  EXPECT_EQ(read_file(folder_.file("out/report.json")), "mine");
}

TEST_F(RunnerTest, WhatAnotherOfItsStagesWroteIsItsOwn) {
  run(kTwo);
  // Other names, and the folder elsewhere.
  std::string renamed = kTwo;
  renamed.replace(renamed.find("name: second"), 12, "name: last");
  run(renamed, resuming());
  EXPECT_EQ(ran(), Names{"b"});
  std::filesystem::rename(folder_.file("out"), folder_.file("away"));
  std::filesystem::create_directory_symlink("away", folder_.file("out"));
  run(renamed, resuming());
  EXPECT_EQ(ran(), Names{});
  // A forced run that fails, and is gone on with.
  log_.throw_in = "a";
  refusal([&] { run(kTwo, forcing()); }, ExitCode::kResources);
  log_.throw_in.clear();
  run(kTwo, resuming());
  EXPECT_EQ(ran(), (Names{"a", "b"}));
}

TEST_F(RunnerTest, AForcedRunThatCannotBePlannedLosesNothing) {
  run(kTwo);
  std::string wrong = kTwo;
  wrong.replace(wrong.find("text: one"), 9, "input: missing.txt");
  refusal([&] { run(wrong, forcing()); }, ExitCode::kBadInput);
  run(kTwo, resuming());
  EXPECT_EQ(ran(), Names{});
}

TEST_F(RunnerTest, AFailedRunLeavesNoReportOfAnEarlierOne) {
  run(kTwo);
  ASSERT_TRUE(std::filesystem::exists(folder_.file("out/report.json")));
  log_.throw_in = "b";
  refusal([&] { run(kTwo, forcing()); }, ExitCode::kResources);
  EXPECT_FALSE(std::filesystem::exists(folder_.file("out/report.json")));
}

TEST_F(RunnerTest, ItsOwnFolderWithinAnInputIsNoPartOfIt) {
  std::filesystem::create_directories(folder_.file("model/out"));
  folder_.write("model/in.txt", "x");
  test::FakeStage stage(log_);
  stage.input_ = folder_.file("model");
  const auto hashes = [&] { return hash_inputs(stage, folder_.file("model/out")); };
  const Json before = hashes();
  EXPECT_EQ(before.size(), 1u);
  folder_.write("model/out/a", "x");
  EXPECT_EQ(hashes(), before);
  folder_.write("model/in.txt", "y");
  EXPECT_NE(hashes(), before);
  // What another stage wrote there counts.
  stage.input_ = folder_.file("model/out");
  const Json within = hashes();
  folder_.write("model/out/a", "y");
  EXPECT_NE(hashes(), within);
}

TEST_F(RunnerTest, AGateOnAFigureThatIsNotThereFails) {
  const Json report =
      run("stages:\n  - fake: {output: a}\n    name: base\n  - fake: {output: b, score: 5}\n"
          "    expect: {score: '< @base.none'}\n");
  EXPECT_FALSE(report["passed"].get<bool>());
  EXPECT_NE(out_.str().find("no number 'none'"), std::string::npos) << out_.str();
}

TEST(ReportPath, LiesBesideAFileAndInsideAFolder) {
  const test::ScratchFolder folder;
  folder.write("m.gguf", "x");
  EXPECT_EQ(report_path(folder.file("m.gguf")), folder.file("m.gguf.report.json"));
  EXPECT_EQ(report_path(folder.path() + "/"), folder.path() + "/slmc_report.json");
  EXPECT_EQ(report_path(""), "");
}

}  // namespace
}  // namespace slmc
