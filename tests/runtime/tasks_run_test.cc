#include "compress/runtime/tasks_run.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/parallel.h"
#include "compress/runtime/evaluate_score.h"
#include "tests/runtime/fake_decoder.h"

namespace slmc {
namespace {

using testing::ByteTokenizer;
using testing::FakeDecoder;
using testing::noisy_logit;
using testing::script_decoder;

// log p(ids[start..]) from the definition.
double plain_log_likelihood(const ScoredSequence& sequence, int64_t vocab) {
  double sum = 0;
  for (size_t i = static_cast<size_t>(sequence.start); i < sequence.ids.size(); ++i) {
    const std::vector<int32_t> history(sequence.ids.begin(),
                                       sequence.ids.begin() + static_cast<std::ptrdiff_t>(i));
    double total = 0;
    for (int32_t id = 0; id < vocab; ++id)
      total += std::exp(static_cast<double>(noisy_logit(history, id)));
    sum += static_cast<double>(noisy_logit(history, sequence.ids[i])) - std::log(total);
  }
  return sum;
}

TEST(TasksRun, LogLikelihoodsDoNotDependOnWhatIsShared) {
  const FakeDecoder decoder(20, noisy_logit);
  std::vector<int32_t> long_ids;
  for (int32_t i = 0; i < 150; ++i) long_ids.push_back(i * 7 % 20);
  const std::vector<std::vector<ScoredSequence>> cases = {
      {{{1, 2, 3, 4, 5}, 3}, {{1, 2, 3, 4, 6, 7}, 3}, {{1, 2, 3, 9}, 3}},  // A shared prompt.
      {{{1, 2, 3}, 1}, {{4, 2, 3}, 1}},                                    // Nothing shared.
      {{{1, 2, 3, 4}, 3}},                                                 // One sequence.
      {{{1, 2}, 1}, {{1, 2, 3, 4}, 3}},  // Prompts of different lengths.
      {{long_ids, 20}, {{5, 6}, 1}}};    // More rows than are held at once.
  for (const auto& sequences : cases) {
    const std::vector<double> result = log_likelihoods(decoder, sequences);
    for (size_t i = 0; i < sequences.size(); ++i)
      EXPECT_NEAR(result[i], plain_log_likelihood(sequences[i], 20), 1e-11);
  }
}

std::vector<int32_t> plain_greedy(const FakeDecoder& decoder, std::vector<int32_t> history,
                                  int64_t count, int32_t stop) {
  std::vector<int32_t> generated;
  std::vector<float> logits(static_cast<size_t>(decoder.arch().vocab));
  for (int64_t i = 0; i < count; ++i) {
    const auto cache = decoder.new_cache(1000);
    decoder.forward(*cache, history, logits.data(), true);
    const int32_t next = argmax(logits.data(), decoder.arch().vocab);
    if (next == stop) break;
    generated.push_back(next);
    history.push_back(next);
  }
  return generated;
}

TEST(TasksRun, GuessesChangeTheWorkAndNotTheResult) {
  const FakeDecoder decoder(12, noisy_logit);
  const std::vector<int32_t> prompt = {3, 1, 4}, stops = {11};
  const std::vector<int32_t> expected = plain_greedy(decoder, prompt, 40, 11);
  ASSERT_GT(expected.size(), 4u);
  const std::vector<std::function<std::vector<int32_t>(const std::vector<int32_t>&)>> guessers = {
      nullptr,
      [&](const auto& generated) {
        return std::vector<int32_t>(
            expected.begin() + static_cast<std::ptrdiff_t>(generated.size()), expected.end());
      },
      [](const auto&) { return std::vector<int32_t>(9, 0); },
      [&](const auto& generated) {
        return generated.empty() ? std::vector<int32_t>{expected[0], expected[1], 10 - expected[2]}
                                 : std::vector<int32_t>{};
      },
      [](const auto&) { return std::vector<int32_t>(200, 5); }};
  for (const auto& guess : guessers) {
    EXPECT_EQ(greedy_with_guesses(
                  decoder, {.prompt = prompt, .count = 40, .stops = stops, .propose = guess}),
              expected);
  }
  decoder.calls = 0;
  greedy_with_guesses(decoder,
                      {.prompt = prompt, .count = 40, .stops = stops, .propose = guessers[1]});
  EXPECT_EQ(decoder.calls, 2);  // The prompt; then all of the right guess at once.
}

TEST(TasksRun, GreedyEndsAtCountAndWhenDone) {
  const FakeDecoder decoder(12, noisy_logit);
  const std::vector<int32_t> prompt = {2};
  const std::vector<int32_t> expected = plain_greedy(decoder, prompt, 6, -1);
  EXPECT_EQ(greedy_with_guesses(decoder, {.prompt = prompt, .count = 6}), expected);
  const auto three = [](const std::vector<int32_t>& generated) { return generated.size() == 3; };
  EXPECT_EQ(
      greedy_with_guesses(decoder, {.prompt = prompt, .count = 6, .propose = {}, .done = three}),
      std::vector<int32_t>(expected.begin(), expected.begin() + 3));
}

TEST(TasksRun, AnswersAreJudgedAsSoonAsTheyAreCertain) {
  EXPECT_EQ(judge_answer("", "card_arrival", false), Verdict::kOpen);
  EXPECT_EQ(judge_answer(" card_", "card_arrival", false), Verdict::kOpen);
  EXPECT_EQ(judge_answer(" card_l", "card_arrival", false), Verdict::kWrong);
  EXPECT_EQ(judge_answer(" card_arrival", "card_arrival", false), Verdict::kOpen);
  EXPECT_EQ(judge_answer(" card_arrival_x", "card_arrival", false), Verdict::kWrong);
  EXPECT_EQ(judge_answer("\n card_arrival \nmore", "card_arrival", false), Verdict::kRight);
  EXPECT_EQ(judge_answer("card_arrival", "card_arrival", true), Verdict::kRight);
  EXPECT_EQ(judge_answer("card_", "card_arrival", true), Verdict::kWrong);
  EXPECT_EQ(judge_answer("", "x", true), Verdict::kWrong);
  EXPECT_EQ(judge_answer("a\nb\nc", "a\nb", false), Verdict::kRight);
}

std::vector<TaskOutcome> run(const Task& task, const FakeDecoder& decoder) {
  const ByteTokenizer tokenizer;
  Context context;
  return run_task(task, decoder, tokenizer, {257}, context);
}

TEST(TasksRun, ExactMatchTakesTheFirstLine) {
  Task task;
  task.kind = TaskKind::kExactMatch;
  for (const char* prompt : {"one:", "two:", "three:", "four:"})
    task.examples.push_back({.prompt = prompt, .answer = "yes"});
  const FakeDecoder decoder = script_decoder(
      {{"one:", " yes"}, {"two:", " yes\nand more"}, {"three:", " yes, but"}, {"four:", " no"}});
  const std::vector<TaskOutcome> outcomes = run(task, decoder);
  EXPECT_TRUE(outcomes[0].correct);
  EXPECT_TRUE(outcomes[1].correct);
  EXPECT_FALSE(outcomes[2].correct);
  EXPECT_FALSE(outcomes[3].correct);
}

TEST(TasksRun, FieldsAreReadFromTheGreedyOutput) {
  Task task;
  task.kind = TaskKind::kFields;
  const FieldValues gold = {{"intent", "return"}, {"product", "kettle"}, {"order", "17"}};
  for (const char* prompt : {"a\n", "b\n", "c\n", "d\n"})
    task.examples.push_back({.prompt = prompt, .fields = gold, .label_field = "intent"});
  const FakeDecoder decoder =
      script_decoder({{"a\n", "intent: return\nproduct: kettle\norder: 17"},
                      {"b\n", "intent: refund\nproduct: kettle\norder: 17\n"},
                      {"c\n", "intent: return\ncolour: red\norder: 17\n\nproduct: kettle"},
                      {"d\n", "I do not know"}});
  const std::vector<TaskOutcome> outcomes = run(task, decoder);
  const struct {
    bool correct;
    int predicted, right;
  } expected[] = {{true, 2, 2}, {false, 2, 2}, {true, 2, 1}, {false, 0, 0}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(outcomes[i].correct, expected[i].correct) << i;
    EXPECT_EQ(outcomes[i].slots_gold, 2) << i;
    EXPECT_EQ(outcomes[i].slots_predicted, expected[i].predicted) << i;
    EXPECT_EQ(outcomes[i].slots_correct, expected[i].right) << i;
  }
}

TEST(TasksRun, ARightAnswerCostsTwoPasses) {
  Task task;
  task.kind = TaskKind::kFields;
  task.examples.push_back({.prompt = "a\n",
                           .fields = {{"intent", "return"}, {"product", "a large kettle"}},
                           .label_field = "intent"});
  const FakeDecoder decoder = script_decoder({{"a\n", "intent: return\nproduct: a large kettle"}});
  EXPECT_EQ(run(task, decoder)[0].slots_correct, 1);
  EXPECT_EQ(decoder.calls, 2);
}

TEST(TasksRun, ChoicesAreRankedByLikelihoodAndByLikelihoodPerByte) {
  // Each letter costs its own fixed number of nats: a 1, b 1.5, and the space is free.
  const FakeDecoder decoder(258, [](const std::vector<int32_t>&, int32_t id) {
    const double cost = id == 'a' ? 1.0 : id == 'b' ? 1.5 : id == ' ' ? 1e-3 : 30.0;
    return static_cast<float>(-cost);
  });
  Task task;
  task.kind = TaskKind::kMultipleChoice;
  task.examples.push_back({.prompt = "q",
                           .choices = {"aaaa", "b"},
                           .gold = 1});  // 4 nats against 1.5; a byte 1 against 1.5.
  const std::vector<TaskOutcome> outcomes = run(task, decoder);
  EXPECT_TRUE(outcomes[0].correct);
  EXPECT_FALSE(outcomes[0].correct_normalised);

  Task labels;
  labels.kind = TaskKind::kClassification;
  labels.labels = {"aaaa", "b"};
  labels.examples.push_back({.prompt = "q", .gold = 1});
  EXPECT_TRUE(run(labels, decoder)[0].correct);
}

TEST(TasksRun, LongPromptsLoseTheirBeginningAndSaySo) {
  FakeDecoder decoder(258, noisy_logit, 32);
  Task task;
  task.kind = TaskKind::kMultipleChoice;
  task.examples.push_back({.prompt = std::string(100, 'x'), .choices = {"a", "b"}, .gold = 0});
  task.examples.push_back({.prompt = "short", .choices = {"a", "b"}, .gold = 0});
  const std::vector<TaskOutcome> outcomes = run(task, decoder);
  EXPECT_TRUE(outcomes[0].truncated);
  EXPECT_FALSE(outcomes[1].truncated);
  Task answers;
  answers.kind = TaskKind::kExactMatch;
  answers.examples.push_back({.prompt = std::string(100, 'x'), .answer = "yes"});
  EXPECT_TRUE(run(answers, decoder)[0].truncated);
}

// A decoder that knows the answers only where the text begins as texts do.
TEST(TasksRun, LongPromptsKeepTheTokenThatTextsBeginWith) {
  const FakeDecoder decoder(
      258,
      [](const std::vector<int32_t>& history, int32_t id) {
        const std::string answer = "xyes";
        const size_t at = answer.find(static_cast<char>(history.back()));
        int32_t next = 257;
        if (history.front() == 256 && at < answer.size() - 1)
          next = static_cast<unsigned char>(answer[at + 1]);
        if (history.back() == ' ') next = history.front() == 256 ? 'a' : 'b';
        return id == next ? 9.0f : 0.0f;
      },
      32);
  Task choices;
  choices.kind = TaskKind::kMultipleChoice;
  choices.examples.push_back({.prompt = std::string(100, 'x'), .choices = {"a", "b"}, .gold = 0});
  const TaskOutcome chosen = run(choices, decoder)[0];
  EXPECT_TRUE(chosen.truncated);
  EXPECT_TRUE(chosen.correct);
  Task answers;
  answers.kind = TaskKind::kExactMatch;
  answers.examples.push_back({.prompt = std::string(100, 'x'), .answer = "yes"});
  const TaskOutcome answered = run(answers, decoder)[0];
  EXPECT_TRUE(answered.correct);
}

// Some ids stand for no bytes; text made of them alone is empty.
TEST(TasksRun, FieldsMayBeginWithATokenWithoutText) {
  class Silent : public ByteTokenizer {
   public:
    std::string token_bytes(int32_t id) const override {
      return id == 0 ? "" : ByteTokenizer::token_bytes(id);
    }
  };
  const FakeDecoder decoder(258, [](const std::vector<int32_t>& history, int32_t id) {
    return id == (history.back() == '\n' ? 0 : 257) ? 9.0f : 0.0f;
  });
  Task task;
  task.kind = TaskKind::kFields;
  task.examples.push_back(
      {.prompt = "a\n", .fields = {{"intent", "return"}}, .label_field = "intent"});
  Context context;
  EXPECT_FALSE(run_task(task, decoder, Silent(), {257}, context)[0].correct);
}

TEST(TasksRun, AnyNumberOfThreadsGivesTheSameOutcomes) {
  const FakeDecoder decoder(258, noisy_logit);
  Task task;
  task.kind = TaskKind::kMultipleChoice;
  for (int i = 0; i < 40; ++i)
    task.examples.push_back(
        {.prompt = std::to_string(i * i), .choices = {"ab", "cd", "e", "fghi"}, .gold = i % 4});
  const int before = threads();
  std::vector<std::string> results;
  for (int count : {1, 2, 3}) {
    set_threads(count);
    results.push_back(summarize_task(task, run(task, decoder), 0).dump());
  }
  set_threads(before);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

}  // namespace
}  // namespace slmc
