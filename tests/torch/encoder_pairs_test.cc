// Pairs of texts with labels, as a user trains an encoder on them: what they teach, that the figure
// is the file's, and that both networks see which text a token is of.
#include <gtest/gtest.h>

#include "compress/core/json.h"
#include "compress/core/random.h"
#include "compress/core/text.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

using test::Options;
using test::run_slmc;

/// Whether the second text speaks of the first one's thing.
std::string statements(int count, uint64_t seed) {
  const char* const things[] = {"cat", "door"};
  const char* const ends[] = {"is hot", "will open", "is in the oven"};
  Random random(seed);
  std::string out;
  for (int i = 0; i < count; ++i) {
    const uint64_t first = random.below(2), second = random.below(2);
    out += Json{{"text", cat("the ", things[first], " ", ends[random.below(3)])},
                {"text_pair", cat("my ", things[second])},
                {"label", first == second ? "same"
                          : first == 0    ? "from_cat"
                                          : "from_door"}}
               .dump() +
           "\n";
  }
  return out;
}

class EncoderPairs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TemporaryFolder;
    folder_->write("tokenizer/tokenizer.json",
                   test::slurp(std::string(SLMC_FIXTURES) + "/tokenizer/wordpiece.json"));
    folder_->write("bert/config.json", R"({"architectures": ["BertForMaskedLM"],
      "model_type": "bert", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
      "num_attention_heads": 4, "max_position_embeddings": 40, "vocab_size": 163,
      "initializer_range": 0.1, "type_vocab_size": 2, "pad_token_id": 0})");
    folder_->write("train.jsonl", statements(300, 3));
    folder_->write("test.jsonl", statements(60, 4));
    const auto run = run_slmc(training("teacher", {{"--eval-text", folder_->file("test.jsonl")}}));
    ASSERT_EQ(run.exit_code, 0) << run.err;
  }
  static void TearDownTestSuite() { delete folder_; }

  /// Labels, from random weights.
  static std::vector<std::string> training(const std::string& out, const Options& changes = {}) {
    const Options options{{"--student", folder_->file("bert/config.json")},
                          {"--tokenizer", folder_->file("tokenizer")},
                          {"--data", folder_->file("train.jsonl")},
                          {"-o", folder_->file(out)},
                          {"--context", "24"},
                          {"--batch", "16"},
                          {"--steps", "80"},
                          {"--lr", "0.005"},
                          {"--seed", "5"},
                          {"-q", ""}};
    return test::command_line({"distill"}, options, changes);
  }
  static Json report(const std::string& out) {
    return read_json(folder_->file(out + "/slmc_report.json"));
  }
  /// What `slmc eval` says of a file of pairs.
  static Json task(const std::string& model) {
    const auto run = run_slmc({"eval", folder_->file(model), "--tasks", folder_->file("test.jsonl"),
                               "--activations", "f32", "--json", "-", "-q"});
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return run.exit_code == 0 ? parse_json(run.out, "eval")["tasks"]["test"] : Json();
  }
  static std::string weights(const std::string& out) {
    return test::slurp(folder_->file(out + "/model.safetensors"));
  }
  static test::TemporaryFolder* folder_;
};
test::TemporaryFolder* EncoderPairs::folder_ = nullptr;

TEST_F(EncoderPairs, AreLearnedAndTheFigureIsTheFiles) {
  const Json best = report("teacher")["evaluation"], again = task("teacher");
  EXPECT_GT(best["accuracy"].get<double>(), 0.95) << best;
  for (const char* key : {"accuracy", "accuracy_low", "macro_f1", "cross_entropy", "n"})
    EXPECT_EQ(best[key], again[key]) << key;
  // [CLS] the X is hot [SEP] my X [SEP]: the shortest pair has eight tokens.
  EXPECT_GT(report("teacher")["data"]["tokens"].get<int>(), 300 * 8);
}

TEST_F(EncoderPairs, TeachAStudentOfFewerLayers) {
  const auto run = run_slmc(training("student", {{"--student", "layers:1"},
                                                 {"--teacher", folder_->file("teacher")},
                                                 {"--loss", "forward_kl,cosine_hidden(layers=0:1)"},
                                                 {"--temperature", "2"},
                                                 {"--steps", "60"},
                                                 {"--eval-text", folder_->file("test.jsonl")}}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_GT(report("student")["evaluation"]["accuracy"].get<double>(), 0.95);
  EXPECT_EQ(report("student")["evaluation"]["cross_entropy"], task("student")["cross_entropy"]);
}

TEST_F(EncoderPairs, KilledAndResumedWriteTheSameBytes) {
  Options options{{"--steps", "30"}, {"--threads", "2"}};
  ASSERT_EQ(run_slmc(training("whole", options)).exit_code, 0);
  options["--threads"] = "1";
  test::kill_and_resume(training("killed", options), folder_->file("killed"));
  EXPECT_TRUE(weights("whole") == weights("killed"));
}

// Texts below all that is trained run once; so do their segments.
TEST_F(EncoderPairs, AreTheSameWhenTheStatesOfFrozenLayersAreKept) {
  const auto finetune = [&](const std::string& out, bool again) {
    std::vector<std::string> arguments{"finetune",
                                       folder_->file("teacher"),
                                       "--train-layers",
                                       "last:1",
                                       "--data",
                                       folder_->file("train.jsonl"),
                                       "-o",
                                       folder_->file(out),
                                       "--steps",
                                       "40",
                                       "--batch",
                                       "20",
                                       "--context",
                                       "24",
                                       "-q"};
    if (again) arguments.push_back("--recompute-frozen");
    const auto run = run_slmc(arguments);
    EXPECT_EQ(run.exit_code, 0) << run.err;
  };
  finetune("kept", false);
  finetune("again", true);
  EXPECT_TRUE(weights("kept") == weights("again"));
}

TEST_F(EncoderPairs, TooLongOnesAreCutAndCounted) {
  const auto run = run_slmc(training("cut", {{"--context", "7"}, {"--steps", "2"}}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(report("cut")["data"]["cut_documents"], 300);
  EXPECT_EQ(report("cut")["data"]["tokens"], 2100);
}

TEST_F(EncoderPairs, AreForEncodersAlone) {
  test::write_tiny_model(folder_->file("decoder"));
  const auto run =
      run_slmc({"eval", folder_->file("decoder"), "--tasks", folder_->file("test.jsonl"), "-q"});
  EXPECT_EQ(run.exit_code, 4);
  EXPECT_NE(run.err.find("test.jsonl: \"text_pair\""), std::string::npos) << run.err;
}

TEST_F(EncoderPairs, LogitsTakeSegments) {
  const auto logits = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"logits", folder_->file("teacher"), "--ids",  "2,66,3,66,3",
                                       "-o",     folder_->file("l.npy"),   "--force"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_slmc(arguments);
  };
  ASSERT_EQ(logits({}).exit_code, 0);
  const std::string plain = test::slurp(folder_->file("l.npy"));
  ASSERT_EQ(logits({"--types", "0,0,0,0,0"}).exit_code, 0);
  EXPECT_TRUE(plain == test::slurp(folder_->file("l.npy")));
  ASSERT_EQ(logits({"--types", "0,0,0,1,1"}).exit_code, 0);
  EXPECT_FALSE(plain == test::slurp(folder_->file("l.npy")));
  for (const char* backend : {"runtime", "torch"}) {
    const auto unknown = logits({"--types", "0,0,0,1,2", "--backend", backend});
    EXPECT_EQ(unknown.exit_code, 3) << unknown.err;
    EXPECT_NE(unknown.err.find("token type"), std::string::npos) << unknown.err;
  }
  const auto few = logits({"--types", "0,1"});
  EXPECT_EQ(few.exit_code, 2);
  EXPECT_NE(few.err.find("expected one for each of the 5 ids, found 2"), std::string::npos)
      << few.err;
}

}  // namespace
}  // namespace slmc
