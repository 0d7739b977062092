#include "compress/runtime/tasks.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>

#include "compress/core/error.h"
#include "compress/runtime/statistics.h"

namespace slmc {
namespace {

// A file that goes when the test ends.
class TaskFile {
 public:
  explicit TaskFile(const std::string& text)
      : path_(::testing::TempDir() + "slmc_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl") {
    std::ofstream(path_) << text;
  }
  ~TaskFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string error_of(const std::string& text) {
  const TaskFile file(text);
  try {
    read_task(file.path(), 0);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    return std::string(error.what()).substr(file.path().size());
  }
  ADD_FAILURE() << "nothing was thrown for " << text;
  return "";
}

TEST(Tasks, ReadsMultipleChoice) {
  const TaskFile file(
      "{\"query\": \"Predators eat\", \"choices\": [\"lions\", \"grass\"], \"gold\": 1, \"group\": "
      "\"easy\"}\n\n"
      "{\"query\": \"2+2=\", \"choices\": [\"4\", \"5\", \"6\"], \"gold\": 0}\n");
  const Task task = read_task(file.path(), 0);
  EXPECT_EQ(task.kind, TaskKind::kMultipleChoice);
  EXPECT_EQ(task.name, "slmc_ReadsMultipleChoice");
  ASSERT_EQ(task.examples.size(), 2u);
  EXPECT_EQ(task.examples[0].prompt, "Predators eat");
  EXPECT_EQ(task.examples[0].gold, 1);
  EXPECT_EQ(task.examples[0].group, "easy");
  EXPECT_EQ(task.examples[1].choices.size(), 3u);
  EXPECT_EQ(read_task(file.path(), 1).examples.size(), 1u);
  EXPECT_EQ(peek_task_kind(file.path()), TaskKind::kMultipleChoice);
}

TEST(Tasks, LabelsAreThoseOfTheWholeFile) {
  const TaskFile file(
      "{\"text\": \"a\", \"label\": \"refund\"}\n{\"text\": \"b\", \"label\": "
      "\"broken\"}\n{\"text\": \"c\", \"label\": \"refund\"}\n");
  const Task task = read_task(file.path(), 1);
  EXPECT_EQ(task.kind, TaskKind::kClassification);
  EXPECT_EQ(task.labels, (std::vector<std::string>{"broken", "refund"}));
  ASSERT_EQ(task.examples.size(), 1u);
  EXPECT_EQ(task.examples[0].gold, 1);
}

TEST(Tasks, ReadsFieldsAndLeavesEmptyOnesOut) {
  const TaskFile file(
      "{\"prompt\": \"p\", \"fields\": {\"intent\": \"return\", \"product\": \" kettle \", "
      "\"date\": \"\"}, \"label\": \"intent\"}\n");
  const Task task = read_task(file.path(), 0);
  EXPECT_EQ(task.kind, TaskKind::kFields);
  EXPECT_EQ(task.examples[0].fields, (FieldValues{{"intent", "return"}, {"product", "kettle"}}));
}

TEST(Tasks, ErrorsNameTheLine) {
  const std::string good = "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n";
  EXPECT_NE(error_of(good + "\n" + "{\"query\": \"q\"").find(":3"), std::string::npos);
  EXPECT_NE(error_of(good + "{\"prompt\": \"q\", \"answer\": \"a\"}")
                .find(":2: expected a task of kind multiple_choice"),
            std::string::npos);
  EXPECT_NE(error_of("{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 2}")
                .find(":1: \"gold\": expected an index from 0 to 1, found 2"),
            std::string::npos);
  EXPECT_NE(error_of("{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": 0}").find("at least two"),
            std::string::npos);
  EXPECT_NE(error_of("{\"query\": 3, \"choices\": [\"a\", \"b\"], \"gold\": 0}")
                .find("\"query\": expected a string, found number"),
            std::string::npos);
  EXPECT_NE(error_of("{\"prompt\": \"p\", \"fields\": {\"a\": \"b\"}, \"label\": \"intent\"}")
                .find("intent"),
            std::string::npos);
  EXPECT_NE(error_of("{\"prompt\": \"p\", \"fields\": {\"a\": 1}, \"label\": \"a\"}")
                .find("object of strings"),
            std::string::npos);
  EXPECT_NE(error_of("{\"prompt\": \"p\", \"answer\": \"  \"}").find("\"answer\""),
            std::string::npos);
  EXPECT_NE(error_of("{\"text\": \"p\", \"label\": \"x\"}").find("two different labels"),
            std::string::npos);
  EXPECT_NE(error_of("{\"text\": \"p\"}").find(":1: not a task"), std::string::npos);
  EXPECT_NE(error_of("[1]").find("found array"), std::string::npos);
  EXPECT_NE(error_of("\n\n").find("found none"), std::string::npos);
}

TEST(Tasks, ParsesFieldsUntilTheFirstBlankLine) {
  EXPECT_EQ(
      parse_fields("\n intent: return \nproduct:Brava 300: steel\nno field\nempty:\r\nintent: "
                   "again\n\nlate: x"),
      (FieldValues{{"intent", "return"}, {"product", "Brava 300: steel"}, {"intent", "again"}}));
  EXPECT_TRUE(parse_fields("").empty());
  EXPECT_TRUE(parse_fields(" : x\nname:").empty());
}

TaskExample gold_example() {
  TaskExample example;
  example.fields = {
      {"intent", "return"}, {"product", "kettle"}, {"order", "A-17"}, {"date", "May 3"}};
  example.label_field = "intent";
  return example;
}

TEST(Tasks, JudgesFieldsByNameAndValue) {
  // Right: product. Wrong: order's value; a field that is not there; a second product.
  const TaskOutcome outcome = judge_fields(gold_example(), {{"intent", "return"},
                                                            {"product", "kettle"},
                                                            {"order", "A-71"},
                                                            {"colour", "red"},
                                                            {"product", "kettle"}});
  EXPECT_TRUE(outcome.correct);
  EXPECT_EQ(outcome.slots_gold, 3);
  EXPECT_EQ(outcome.slots_predicted, 4);
  EXPECT_EQ(outcome.slots_correct, 1);
  EXPECT_FALSE(judge_fields(gold_example(), {{"intent", "refund"}, {"intent", "return"}}).correct);
  EXPECT_FALSE(judge_fields(gold_example(), {}).correct);
}

TEST(Tasks, SlotFiguresAreMicroAveraged) {
  Task task;
  task.kind = TaskKind::kFields;
  task.examples.assign(4, gold_example());
  const std::vector<TaskOutcome> outcomes = {
      {.correct = true, .slots_gold = 3, .slots_predicted = 3, .slots_correct = 3},
      {.correct = true, .slots_gold = 3, .slots_predicted = 2, .slots_correct = 1},
      {.correct = false, .slots_gold = 3, .slots_predicted = 5, .slots_correct = 2},
      {.correct = true, .slots_gold = 3, .slots_predicted = 0, .slots_correct = 0}};
  const Json json = summarize_task(task, outcomes, 11);
  EXPECT_EQ(json["kind"], "fields");
  EXPECT_EQ(json["n"], 4);
  EXPECT_EQ(json["accuracy"], 0.75);
  EXPECT_DOUBLE_EQ(json["accuracy_low"].get<double>(), wilson_interval(3, 4).low);
  EXPECT_DOUBLE_EQ(json["precision"].get<double>(), 0.6);  // 6 of 10.
  EXPECT_DOUBLE_EQ(json["recall"].get<double>(), 0.5);     // 6 of 12.
  EXPECT_DOUBLE_EQ(json["f1"].get<double>(), 12.0 / 22.0);
  EXPECT_LT(json["f1_low"].get<double>(), json["f1"].get<double>());
  EXPECT_GT(json["f1_high"].get<double>(), json["f1"].get<double>());
  EXPECT_FALSE(json.contains("groups"));
  EXPECT_EQ(json, summarize_task(task, outcomes, 11));  // The bootstrap follows its seed.
}

// Worked by hand: class 0 has F1 2*2/(3+2), class 1 2*1/(1+2), class 2 0 of 1 + 0, class 5 0 of 0
// + 1.
TEST(Tasks, MacroF1IsTheMeanOverClassesThatOccur) {
  Task task;
  task.kind = TaskKind::kClassification;
  task.by_head = true;
  task.examples.resize(5);
  std::vector<TaskOutcome> outcomes;
  const std::vector<std::pair<int, int>> pairs{{0, 0}, {0, 0}, {0, 1}, {1, 1}, {2, 5}};
  for (const auto& [gold, predicted] : pairs)
    outcomes.push_back({.correct = gold == predicted,
                        .gold_class = gold,
                        .predicted_class = predicted,
                        .nll = 0.25 * gold});
  const Json json = summarize_task(task, outcomes, 0);
  EXPECT_EQ(json["accuracy"], 0.6);
  EXPECT_DOUBLE_EQ(json["macro_f1"].get<double>(), (0.8 + 2.0 / 3.0) / 4.0);
  EXPECT_DOUBLE_EQ(json["cross_entropy"].get<double>(), 0.15);
  EXPECT_FALSE(json.contains("accuracy_normalised"));
  task.by_head = false;
  EXPECT_TRUE(summarize_task(task, outcomes, 0).contains("accuracy_normalised"));
}

TEST(Tasks, GroupsAreReportedBesideTheWhole) {
  Task task;
  task.kind = TaskKind::kExactMatch;
  task.examples.resize(3);
  task.examples[0].group = "short";
  task.examples[1].group = "long";
  task.examples[2].group = "long";
  const Json json = summarize_task(
      task,
      std::vector<TaskOutcome>{
          {.correct = true}, {.correct = true}, {.correct = false, .truncated = true}},
      0);
  EXPECT_DOUBLE_EQ(json["accuracy"].get<double>(), 2.0 / 3.0);
  EXPECT_EQ(json["truncated"], 1);
  EXPECT_EQ(json["groups"]["long"]["accuracy"], 0.5);
  EXPECT_EQ(json["groups"]["short"]["n"], 1);
}

}  // namespace
}  // namespace slmc
