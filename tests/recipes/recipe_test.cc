// Reading recipes: what is accepted, and where and in which words the rest is refused.
#include "recipes/recipe.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "formats/hub_cache.h"
#include "recipes/bound.h"
#include "tests/recipes/fake_stage.h"

namespace slmc {
namespace {

using test::refusal;

class RecipeTest : public ::testing::Test {
 protected:
  Recipe parse(const std::string& text, const std::vector<std::string>& settings = {}) {
    return parse_recipe(text, "dir/r.yaml", table_, settings);
  }
  std::string refused(const std::string& text, const std::vector<std::string>& settings = {}) {
    return refusal([&] { bind_recipe(parse(text, settings), table_); });
  }
  /// Binds, and gives the fake of the stage at `index`.
  const test::FakeStage& bound(const std::string& text, size_t index = 0,
                               const std::vector<std::string>& settings = {}) {
    recipe_ = parse(text, settings);
    stages_ = bind_recipe(recipe_, table_);
    return dynamic_cast<const test::FakeStage&>(*stages_.at(index).stage);
  }

  test::FakeLog log_;
  StageTable table_ = test::fake_table(log_);
  Recipe recipe_;
  std::vector<BoundStage> stages_;
};

TEST_F(RecipeTest, OptionsHaveTheNamesOfFlags) {
  const auto& stage = bound(
      "stages:\n  - fake: {output: a, score: 2.5, steps: 3, fast: true, data-files: [x, y], kind: "
      "square}\n");
  EXPECT_DOUBLE_EQ(stage.score_, 2.5);
  EXPECT_EQ(stage.steps_, 3);
  EXPECT_TRUE(stage.fast_);
  EXPECT_EQ(stage.data_, (std::vector<std::string>{"dir/x", "dir/y"}));
  EXPECT_EQ(bound("stages:\n  - fake: {output: a, data_files: x}\n").data_,
            std::vector<std::string>{"dir/x"});
}

TEST_F(RecipeTest, GroupedOptionsAreMaps) {
  EXPECT_EQ(bound("stages:\n  - fake: {output: a, lora: {r: 8, alpha: 16}}\n").lora_,
            "r=8,alpha=16");
}

TEST_F(RecipeTest, TextOptionsTakeNumbersAsWritten) {
  EXPECT_EQ(bound("stages:\n  - fake: {output: a, text: 0.50}\n").text_, "0.50");
  EXPECT_EQ(bound("stages:\n  - fake: {output: a, text: 2:4}\n").text_, "2:4");
}

TEST_F(RecipeTest, JsonIsYaml) {
  const auto& stage =
      bound(R"({"name": "j", "stages": [{"fake": {"output": "a", "score": 2, "text": "x"}}]})");
  EXPECT_EQ(stage.text_, "x");
  EXPECT_EQ(recipe_.name, "j");
}

TEST_F(RecipeTest, VariablesAreReplacedEverywhere) {
  const std::string text =
      "name: n-${size}\noutput: out/${size}\nvars: {size: small, file: '${size}.txt', files: [a, "
      "b]}\n"
      "stages:\n  - fake: {output: ${size}, text: 'x ${size} y', input: ${file}, data_files: "
      "${files}}\n    expect: {score: '< ${size}'}\n";
  EXPECT_NE(refused(text).find("expected a number"), std::string::npos);
  const auto& stage = bound(text.substr(0, text.find("    expect")));
  EXPECT_EQ(recipe_.name, "n-small");
  EXPECT_EQ(stage.text_, "x small y");
  EXPECT_EQ(stage.input_, "dir/small.txt");
  EXPECT_EQ(stage.output_, "out/small/small");
  EXPECT_EQ(stage.data_, (std::vector<std::string>{"dir/a", "dir/b"}));
}

TEST_F(RecipeTest, SetOverridesVariablesAndOptions) {
  const std::string text =
      "vars: {file: a.txt, n: 1}\nstages:\n  - fake: {output: o, input: ${file}, steps: ${n}}\n    "
      "name: one\n";
  EXPECT_EQ(bound(text).input_, "dir/a.txt");
  EXPECT_EQ(bound(text, 0, {"n=7"}).steps_, 7);
  EXPECT_EQ(bound(text, 0, {"one.steps=9", "one.kind=square"}).steps_, 9);
  // A path typed on the command line means the folder it is typed in.
  EXPECT_EQ(bound(text, 0, {"file=b.txt"}).input_, "b.txt");
}

TEST_F(RecipeTest, SetRefusesWhatIsNotThere) {
  const std::string text = "vars: {teacher: a}\nstages:\n  - fake: {output: o}\n";
  EXPECT_NE(refused(text, {"techer=b"})
                .find("--set: dir/r.yaml has no variable 'techer'; did you mean 'teacher'?"),
            std::string::npos);
  EXPECT_NE(refused(text, {"fke.steps=2"}).find("has no stage 'fke'; did you mean 'fake'?"),
            std::string::npos);
  EXPECT_NE(refused(text, {"fake.stps=2"}).find("fake has no option 'stps'; did you mean 'steps'?"),
            std::string::npos);
  EXPECT_NE(
      refused(text, {"fake.steps=x"}).find("steps: expected a whole number at least 1, found 'x'"),
      std::string::npos);
  EXPECT_NE(refused(text, {"teacher"}).find("expected key=value"), std::string::npos);
}

TEST_F(RecipeTest, LaterStagesReferToOutputs) {
  const std::string text =
      "output: out\nstages:\n  - fake: {output: a}\n    name: first\n  - fake: {output: b, input: "
      "'@first', text: '@@x', data_files: ['@first/z']}\n";
  const auto& stage = bound(text, 1);
  EXPECT_EQ(stage.input_, "out/a");
  EXPECT_EQ(stage.text_, "@x");
  EXPECT_EQ(stage.data_, std::vector<std::string>{"out/a/z"});
  EXPECT_EQ(stages_[1].after, (std::vector<std::string>{"first", "first"}));
}

TEST_F(RecipeTest, ModelsMayBeNamedAsInTheCache) {
  test::ScratchFolder cache;
  std::filesystem::create_directories(cache.file("models--acme--tiny/snapshots/abc"));
  const std::string text =
      "stages:\n  - fake: {output: a, input: acme/tiny, data_files: [acme/x]}\n";
  set_hub_cache(cache.path());
  const auto& stage = bound(text);
  set_hub_cache("");
  EXPECT_EQ(stage.input_, "acme/tiny");
  EXPECT_EQ(stage.data_, std::vector<std::string>{"dir/acme/x"});
  EXPECT_EQ(bound(text).input_, "dir/acme/tiny");  // No cache is set.
}

TEST_F(RecipeTest, StagesWithoutANameAreNumbered) {
  const Recipe recipe =
      parse("stages:\n  - fake: {output: a}\n  - fake: {output: b}\n  - look: {output: c}\n");
  EXPECT_EQ(recipe.stages[0].name, "fake");
  EXPECT_EQ(recipe.stages[1].name, "fake-2");
  EXPECT_EQ(recipe.stages[2].name, "look");
}

TEST_F(RecipeTest, NameAndExpectMayStandInTheStage) {
  const Recipe recipe = parse(
      "stages:\n  - fake: {name: one, output: a, allow-failure: true, expect: {score: '< 2'}}\n");
  EXPECT_EQ(recipe.stages[0].name, "one");
  EXPECT_EQ(recipe.stages[0].expectations.size(), 1u);
  EXPECT_TRUE(recipe.stages[0].allow_failure);
  EXPECT_NE(refused("stages:\n  - fake: {name: one, output: a}\n    name: two\n")
                .find("dir/r.yaml:2:12: 'name' stands both"),
            std::string::npos);
}

struct Refusal {
  const char* recipe;
  const char* message;
};

TEST_F(RecipeTest, RefusalsNamePositionAndNearest) {
  const std::vector<Refusal> refusals = {
      {"stage: []\n", "dir/r.yaml:1:1: unknown key 'stage'; did you mean 'stages'?"},
      {"name: x\n", "dir/r.yaml:1:1: 'stages' is missing"},
      {"stages: []\n", "dir/r.yaml:1:9: stages: expected a list, found an empty list"},
      {"stages:\n  - fkae: {}\n",
       "dir/r.yaml:2:5: unknown stage or key 'fkae'; did you mean 'fake'?"},
      {"stages:\n  - fake: {output: a, sore: 1}\n",
       "dir/r.yaml:2:23: fake has no option 'sore'; did you mean 'score'?"},
      {"stages:\n  - fake: {output: a, score: 101}\n",
       "dir/r.yaml:2:30: score: expected a number from 0 to 100, found '101'"},
      {"stages:\n  - fake: {output: a, score: x}\n",
       "dir/r.yaml:2:30: score: expected a number from 0 to 100, found 'x'"},
      {"stages:\n  - fake: {output: a, score: [1]}\n",
       "dir/r.yaml:2:30: score: expected one value, found a list"},
      {"stages:\n  - fake: {output: a, steps: 1.5}\n",
       "steps: expected a whole number at least 1, found '1.5'"},
      {"stages:\n  - fake: {output: a, fast: maybe}\n",
       "fast: expected true or false, found 'maybe'"},
      {"stages:\n  - fake: {output: a, kind: rond}\n",
       "kind: expected one of round, square, found 'rond'; did you mean 'round'?"},
      {"stages:\n  - fake: {text: a}\n", "dir/r.yaml:2:5: fake needs 'output': Output."},
      {"stages:\n  - fake: {output: a, text: }\n", "text: expected one value, found nothing"},
      {"stages:\n  - fake: {output: a, input: '@b'}\n",
       "@b: no stage before this one has that name"},
      {"stages:\n  - fake: {output: a}\n    name: first\n  - fake: {output: b, input: '@frst'}\n",
       "dir/r.yaml:4:30: @frst: no stage before this one has that name; did you mean 'first'?"},
      {"stages:\n  - fake: {output: a}\n    name: first\n    expect: {score: '< @frst.score'}\n",
       "expect: no stage up to this one is called 'frst'; did you mean 'first'?"},
      {"stages:\n  - fake: {output: .}\n", "'.' is the recipe's own folder"},
      {"stages:\n  - fake: {output: a/}\n  - fake: {output: a/b}\n",
       "dir/r.yaml:3:5: writes r-out/a/b, and stage 'fake' r-out/a"},
      {"vars: {x: 1}\nstages:\n  - fake: {output: a, text: \"${ x }\"}\n",
       "a variable is written ${name}"},
      {"stages:\n  - fake: {output: a}\n  - fake: {output: ./a}\n",
       "dir/r.yaml:3:5: writes r-out/a, and so does stage 'fake'"},
      {"stages:\n  - fake: {output: a}\n    name: x\n  - fake: {output: b}\n    name: x\n",
       "two stages are named 'x'"},
      {"stages:\n  - fake: {output: ${where}}\n", "dir/r.yaml:2:20: no variable 'where' in vars"},
      {"stages:\n  - fake: {output: a}\n    look: {output: b}\n",
       "one stage is both fake and look"},
      {"stages:\n  - name: x\n", "dir/r.yaml:2:5: no stage named here; expected one of fake, look"},
      {"stages:\n  - fake: {output: a}\n    expct: {}\n",
       "dir/r.yaml:3:5: unknown stage or key 'expct'; did you mean 'expect'?"},
      {"- fake\n", "dir/r.yaml:1:1: expected a map with 'stages', found a list"},
  };
  for (const Refusal& each : refusals) {
    const std::string message = refused(each.recipe);
    EXPECT_NE(message.find(each.message), std::string::npos) << each.recipe << "gave: " << message;
  }
}

TEST_F(RecipeTest, BrokenYamlIsBadInputWithItsPosition) {
  const auto broken = [&](const std::string& text) {
    return refusal([&] { parse(text); }, ExitCode::kBadInput);
  };
  EXPECT_EQ(broken("stages: [1\nname: b").rfind("dir/r.yaml:2:", 0), 0u)
      << broken("stages: [1\nname: b");
  EXPECT_NE(broken("a: 1\na: 2\n").find("dir/r.yaml:2:1: key 'a' appears twice"),
            std::string::npos);
  EXPECT_NE(broken("").find("empty"), std::string::npos);
  EXPECT_NE(broken("a: 1\n---\nb: 2\n").find("2 YAML documents"), std::string::npos);
  EXPECT_NE(broken("? [x]\n: 1\n").find("a key must be a word"), std::string::npos);
  EXPECT_NE(broken("a: *b\n").find("dir/r.yaml:1:"), std::string::npos);
  EXPECT_NE(broken(std::string(40, '[') + std::string(40, ']')).find("nested deeper"),
            std::string::npos);
}

TEST_F(RecipeTest, NestedAliasesDoNotGrowWithoutBound) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    text += cat("a", i, ": &a", i, " [");
    for (int j = 0; j < 10; ++j) text += cat(j > 0 ? ", " : "", "*a", i - 1);
    text += "]\n";
  }
  EXPECT_NE(refusal([&] { parse(text); }, ExitCode::kBadInput).find("more than 100000 values"),
            std::string::npos);
}

TEST_F(RecipeTest, BytesThatAreNoTextAreRefusedInOneShortLine) {
  std::string noise;
  for (int i = 0; i < 4000; ++i) noise += static_cast<char>((i * 7919) >> 3);
  std::string message;
  try {
    parse(noise);
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_FALSE(message.empty());
  EXPECT_LT(message.size(), 200u);
}

TEST(NamesAPath, KnowsTheValueNamesOfPaths) {
  for (const char* name : {"FILE", "MODEL", "TEACHER|CACHE", "layers:N|MODEL", "FOLDER"})
    EXPECT_TRUE(names_a_path(name)) << name;
  for (const char* name : {"", "N", "X", "TEXT", "SIZE", "REGEX=TYPE", "PROFILE"})
    EXPECT_FALSE(names_a_path(name)) << name;
}

}  // namespace
}  // namespace slmc
