// Bottleneck adapters and prompts as a user tunes and runs them.
#include <gtest/gtest.h>

#include <filesystem>

#include "compress/core/json.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using test::kill_and_resume;
using test::Options;
using test::run_slmc;

class SideTuning : public ::testing::TestWithParam<std::vector<std::string>> {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("model"), {.layers = 3, .context = 64});
    const std::string text = test::text_by_rule(3000, 40);
    folder_.write("text.txt", text);
    folder_.write("held.txt", text.substr(0, 3000));
    // Documents of some ten tokens: several in a window.
    std::string lines;
    for (int i = 0; i < 400; ++i)
      lines += "{\"prompt\": \"the cat " + std::to_string(i % 7) + "\", \"response\": \" saw " +
               std::to_string(i % 7 + 1) + "\"}\n";
    folder_.write("short.jsonl", lines);
  }
  std::vector<std::string> arguments(const std::string& out, const Options& changes = {},
                                     const std::vector<std::string>& kind = GetParam()) const {
    const Options options{{"--data", folder_.file("text.txt")},
                          {"-o", folder_.file(out)},
                          {"--context", "32"},
                          {"--batch", "8"},
                          {"--steps", "20"},
                          {"--lr", "0.05"},
                          {"--seed", "5"},
                          {"--eval-text", folder_.file("held.txt")},
                          {"-q", ""}};
    std::vector<std::string> head{"finetune", folder_.file("model")};
    head.insert(head.end(), kind.begin(), kind.end());
    return test::command_line(head, options, changes);
  }
  Json report(const std::string& out) const {
    return read_json(folder_.file(out + "/slmc_report.json"));
  }
  std::string weights(const std::string& out) const {
    for (const char* file : {"adapter.safetensors", "adapter_model.safetensors"})
      if (fs::exists(folder_.file(out + "/" + file)))
        return test::slurp(folder_.file(out + "/" + file));
    return "";
  }
  double perplexity(const std::vector<std::string>& more) const {
    std::vector<std::string> all{"eval",
                                 folder_.file("model"),
                                 "--text",
                                 folder_.file("held.txt"),
                                 "--context",
                                 "32",
                                 "--max-tokens",
                                 "4096",
                                 "--activations",
                                 "f32",
                                 "--json",
                                 "-",
                                 "-q"};
    all.insert(all.end(), more.begin(), more.end());
    const auto result = run_slmc(all);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "eval")["perplexity"];
  }
  test::TemporaryFolder folder_;
};

TEST_P(SideTuning, LearnsAndIsWorthWhatTrainingSaid) {
  const auto run = run_slmc(arguments("out"));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const double before = perplexity({}), after = perplexity({"--adapter", folder_.file("out")});
  EXPECT_LT(after, 0.9 * before);
  EXPECT_EQ(report("out")["evaluation"]["perplexity"].get<double>(), after);
  EXPECT_LT(report("out")["logits_difference_libtorch"].get<double>(), 1e-3);
  const auto said = run_slmc({"generate", folder_.file("model"), "--adapter", folder_.file("out"),
                              "-p", "the cat ", "-n", "8", "-q"});
  EXPECT_EQ(said.exit_code, 0) << said.err;
}

// Also where several documents share a window.
TEST_P(SideTuning, KilledAndResumedWritesTheSameBytesOnAnyNumberOfThreads) {
  const Options options{{"--data", folder_.file("short.jsonl")}};
  auto changed = options;
  changed["--threads"] = "2";
  const auto whole = run_slmc(arguments("whole", changed));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  changed["--threads"] = "1";
  const auto resumed = kill_and_resume(arguments("killed", changed), folder_.file("killed"));
  ASSERT_EQ(resumed.exit_code, 0);
  ASSERT_FALSE(weights("whole").empty());
  EXPECT_TRUE(weights("whole") == weights("killed"));
}

TEST_P(SideTuning, GoesOnFromItsFiles) {
  ASSERT_EQ(run_slmc(arguments("first", {{"--steps", "2"}})).exit_code, 0);
  const auto run = run_slmc(arguments("same", {{"--steps", "1"}, {"--lr", "0"}},
                                      {"--init-adapter", folder_.file("first")}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(report("same")["evaluation"]["perplexity"],
            report("first")["evaluation"]["perplexity"]);
}

TEST_P(SideTuning, IsRefusedWhereItCannotBe) {
  const auto refused = [&](const std::string& out, int code, const Options& changes) {
    const auto run = run_slmc(arguments(out, changes));
    EXPECT_EQ(run.exit_code, code) << run.err;
    return run.err;
  };
  EXPECT_NE(refused("out", 2, {{"--merge", ""}}).find("no change of the weights"),
            std::string::npos);
  EXPECT_NE(refused("out.gguf", 4, {}).find("llama.cpp has nothing that runs"), std::string::npos);
  EXPECT_NE(refused("out", 2, {{"--lora", "r=4"}}).find("one is trained"), std::string::npos);
}

const char* const kKinds[] = {"prompt", "pfeiffer", "houlsby", "dropout"};
INSTANTIATE_TEST_SUITE_P(
    Kinds, SideTuning,
    ::testing::Values(std::vector<std::string>{"--prompt-tokens", "6"},
                      std::vector<std::string>{"--adapter", "reduction=4"},
                      std::vector<std::string>{"--adapter",
                                               "reduction=8,kind=houlsby,activation=gelu"},
                      std::vector<std::string>{"--adapter", "reduction=4,dropout=0.2"}),
    [](const auto& instance) { return kKinds[instance.index]; });

using AdapterDropout = SideTuning;

TEST_F(AdapterDropout, IsOfTrainingAloneAndTheSameWhenBlocksRunAgain) {
  const auto train = [&](const std::string& out, const std::string& adapter,
                         const Options& changes) {
    const auto run = run_slmc(arguments(out, changes, {"--adapter", adapter}));
    EXPECT_EQ(run.exit_code, 0) << run.err;
  };
  const std::string adapter = "reduction=4,kind=houlsby,dropout=0.3";
  train("out", adapter, {});
  train("again", adapter, {{"--recompute", ""}});
  train("none", "reduction=4,kind=houlsby", {});
  EXPECT_TRUE(weights("out") == weights("again"));
  EXPECT_FALSE(weights("out") == weights("none"));
  const Json config = read_json(folder_.file("out/adapter_config.json"))["config"];
  EXPECT_EQ(config["dropout"], 0.3);
  // Going on from the files goes on with it.
  const Options step{{"--steps", "1"}};
  ASSERT_EQ(run_slmc(arguments("more", step, {"--init-adapter", folder_.file("out")})).exit_code,
            0);
  EXPECT_EQ(read_json(folder_.file("more/adapter_config.json"))["config"]["dropout"], 0.3);
  const auto bad = run_slmc(arguments("bad", {}, {"--adapter", "dropout=1"}));
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_NE(bad.err.find("adapter: dropout"), std::string::npos) << bad.err;
}

using PromptBegin = SideTuning;

TEST_F(PromptBegin, IsRowsOfTheEmbeddingOrNot) {
  const auto prompt = [&](const std::string& init) {
    const auto run = run_slmc(arguments("out", {{"--steps", "1"}, {"--lr", "0"}, {"--force", ""}},
                                        {"--prompt-tokens", "5", "--prompt-init", init}));
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return weights("out");
  };
  EXPECT_FALSE(prompt("vocabulary") == prompt("random"));
  // A text's tokens, the one that begins a text among them, cut to their number or repeated. No
  // merge joins these letters.
  EXPECT_TRUE(prompt("text:qzqz") == prompt("text:qzqzx"));
  EXPECT_FALSE(prompt("text:qzqz") == prompt("text:qzq"));
  const auto bad = run_slmc(arguments("out", {}, {"--prompt-tokens", "5", "--prompt-init", "no"}));
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_NE(bad.err.find("expected vocabulary, random or text:"), std::string::npos) << bad.err;
}

}  // namespace
}  // namespace slmc
