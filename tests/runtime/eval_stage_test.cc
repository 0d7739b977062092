#include "compress/runtime/eval_stage.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/parallel.h"
#include "compress/runtime/evaluate.h"
#include "compress/runtime/evaluate_vocabulary.h"
#include "compress/runtime/smoke_test.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;
using test::spit;
using test::TemporaryFolder;

constexpr char kText[] =
    "The kettle is broken. The kettle was bought in May. Please send a new kettle, or the money "
    "back.\n";

// Two models of one tokenizer (the second with more padding rows), a text and two task files.
class EvalStageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = folder_.file("model");
    teacher_ = folder_.file("teacher");
    test::write_tiny_model(model_, {.vocab = 320, .seed = 1});
    test::write_tiny_model(teacher_, {.vocab = 336, .seed = 2});
    text_ = folder_.file("text.txt");
    spit(text_, std::string(kText) + kText + kText);
    choices_ = folder_.file("choices.jsonl");
    spit(choices_,
         "{\"query\": \"The kettle is\", \"choices\": [\"broken\", \"fine\"], \"gold\": "
         "0}\n{\"query\": \"It was\", \"choices\": [\"new\", \"old\"], \"gold\": 1}\n");
  }

  Report run(EvalOptions options) {
    EvalStage stage(std::move(options));
    Context context;
    return stage.run(stage.plan({}), context);
  }

  TemporaryFolder folder_;
  std::string model_, teacher_, text_, choices_;
};

TEST_F(EvalStageTest, ReportHasTheKeysThatOthersReadAndQ8Beside) {
  const Report report = run(
      {.model = model_, .against = teacher_, .text = text_, .tasks = {choices_}, .context = 32});
  for (const char* key :
       {"tokens", "context", "protocol", "activations", "perplexity", "perplexity_se",
        "bits_per_weight", "size_bytes", "against", "q8", "tasks"})
    EXPECT_TRUE(report.contains(key)) << key;
  for (const char* key :
       {"perplexity", "kld_mean", "kld_se", "kld_median", "kld_p99", "kld_max", "top1_agreement"}) {
    EXPECT_TRUE(report["against"].contains(key)) << key;
    EXPECT_TRUE(report["q8"]["against"].contains(key)) << key;
  }
  EXPECT_EQ(report["bits_per_weight"], 32.0);
  EXPECT_EQ(report["q8"]["activations"], "q8");
  EXPECT_GT(report["against"]["kld_mean"].get<double>(), 0.01);
  EXPECT_GE(report["against"]["kld_max"].get<double>(), report["against"]["kld_p99"].get<double>());
  EXPECT_EQ(report["tasks"]["choices"]["n"], 2);
  EXPECT_EQ(report["tasks"]["choices"]["kind"], "multiple_choice");
  for (const auto& [input, path] : {std::pair{"model", model_}, std::pair{"against", teacher_}})
    EXPECT_EQ(report["inputs"][input]["hash"], Model::open(path)->content_hash()) << input;
  EXPECT_EQ(report["inputs"]["text"]["hash"], hash_file(text_));
  EXPECT_EQ(report["inputs"]["tasks"][0]["hash"], hash_file(choices_));
  const std::string table = report["summary"];
  for (const char* shown :
       {"window 32", "q8 against f32", "choices: accuracy", "32.00 bits a weight"})
    EXPECT_NE(table.find(shown), std::string::npos) << shown;
}

TEST_F(EvalStageTest, AModeThatWasChosenIsTheOnlyOne) {
  const Report report = run({.model = model_, .text = text_, .context = 32, .activations = "q8"});
  EXPECT_EQ(report["activations"], "q8");
  EXPECT_FALSE(report.contains("q8"));
  EXPECT_FALSE(report.contains("against"));
}

TEST_F(EvalStageTest, AnyNumberOfThreadsGivesTheSameFigures) {
  const int before = threads();
  std::vector<std::string> results;
  for (int count : {1, 2, 3}) {
    set_threads(count);
    Report report = run(
        {.model = model_, .against = teacher_, .text = text_, .tasks = {choices_}, .context = 16});
    for (const char* key : {"seconds", "peak_rss_bytes", "predicted_peak_bytes", "provenance"})
      report.erase(key);
    results.push_back(report.dump());
  }
  set_threads(before);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_F(EvalStageTest, JsonLinesAreDocuments) {
  const std::string file = folder_.file("documents.jsonl");
  spit(file,
       "{\"text\": \"The kettle is broken.\"}\n{\"text\": \"The lamp is broken too, and so is the "
       "fan.\"}\n{\"text\": \"Send the money back.\"}\n");
  const Report report = run({.model = model_, .text = file, .context = 8, .activations = "f32"});
  EXPECT_EQ(report["documents"], 3);
  EXPECT_GT(report["perplexity_se_documents"].get<double>(), 0.0);
}

TEST_F(EvalStageTest, TheTeacherMustShareTheVocabulary) {
  const std::string other = folder_.file("other");
  test::write_tiny_model(other, {.vocab = 320, .seed = 3});
  std::string tokenizer = test::slurp(other + "/tokenizer.json");
  const size_t at = tokenizer.find("\"b\":");
  ASSERT_NE(at, std::string::npos);
  tokenizer.replace(at, 4, "\"b@\":");
  spit(other + "/tokenizer.json", tokenizer);
  const std::string message =
      error_of([&] { run({.model = model_, .against = other, .text = text_}); });
  EXPECT_NE(message.find("cannot be compared"), std::string::npos) << message;
}

TEST_F(EvalStageTest, PlanSaysWhatWillBeMeasuredAndWhatCannotBe) {
  const Plan plan =
      EvalStage({.model = "unset", .text = text_, .tasks = {choices_}, .max_tokens = 100})
          .plan({.paths = {{"model", model_}, {"against", teacher_}}});
  EXPECT_EQ(plan.details["against"], teacher_);
  std::string notes;
  for (const std::string& note : plan.notes) notes += note + "\n";
  for (const char* shown : {"multiple_choice", "f32 and q8", "the first 100 tokens", "against"})
    EXPECT_NE(notes.find(shown), std::string::npos) << shown;
  EXPECT_GT(plan.predicted_peak_bytes, 0u);

  EXPECT_NE(
      error_of([&] { EvalStage({.model = model_}).plan({}); }).find("--text FILE or --tasks FILE"),
      std::string::npos);
  EXPECT_NE(error_of([&] {
              EvalStage({.model = model_, .against = teacher_, .tasks = {choices_}}).plan({});
            }).find("--against"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              EvalStage({.model = model_, .text = folder_.file("none.txt")}).plan({});
            }).find("none.txt"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              EvalStage({.model = model_, .text = text_, .context = 512}).plan({});
            }).find("256"),
            std::string::npos);
}

TEST_F(EvalStageTest, SmokeTestPassesAndFindsWhatIsNotFinite) {
  smoke_test(*Model::open(model_));
  // The last tensor's last value becomes infinite.
  std::string bytes = test::slurp(model_ + "/model.safetensors");
  for (size_t i = 0; i < 64; ++i)
    bytes[bytes.size() - 256 + 4 * i + 3] = '\x7f', bytes[bytes.size() - 256 + 4 * i + 2] = '\x80',
                                       bytes[bytes.size() - 256 + 4 * i + 1] = 0,
                                       bytes[bytes.size() - 256 + 4 * i] = 0;
  spit(model_ + "/model.safetensors", bytes);
  EXPECT_NE(error_of([&] { smoke_test(*Model::open(model_)); }).find("not finite"),
            std::string::npos);
  EXPECT_NE(
      error_of([&] { run({.model = model_, .text = text_, .context = 32}); }).find("not finite"),
      std::string::npos);
}

}  // namespace
}  // namespace slmc
