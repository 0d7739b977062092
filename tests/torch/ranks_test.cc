// Training on several processes as torchrun starts them: the bytes of one, whatever is interrupted.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <map>

#include "compress/core/json.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;
using test::Options;
using test::ProgramResult;
using test::run_ranks;
using test::run_slmc;

class TrainingRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("teacher"), {.layers = 4, .context = 64});
    folder_.write("text.txt", test::text_by_rule(3000));
  }
  /// A pass a window, eight lanes.
  Arguments distill(const std::string& out, const Options& changes = {}) const {
    Options all = changes;
    all.insert({{"--micro-batch", "1"}, {"--steps", "20"}});
    return test::distill_command(folder_, out, all);
  }
  /// Rank 0's result; the others must have ended as well, and without a word.
  static ProgramResult run_on(int ranks, const Arguments& arguments) {
    const auto results = run_ranks(std::vector<Arguments>(static_cast<size_t>(ranks), arguments));
    for (size_t rank = 1; rank < results.size(); ++rank) {
      EXPECT_EQ(results[rank].exit_code, results[0].exit_code) << results[rank].err;
      if (results[0].exit_code == 0) {
        EXPECT_EQ(results[rank].out + results[rank].err, "");
      }
    }
    return results[0];
  }
  std::string weights(const std::string& out) const {
    return test::read_file(folder_.file(out + "/model.safetensors"));
  }
  /// The logged figures, without what time and memory they took.
  Json metrics(const std::string& out) const {
    Json lines = Json::array();
    std::istringstream file(test::read_file(folder_.file(out + ".metrics.jsonl")));
    for (std::string line; std::getline(file, line);) {
      lines.push_back(Json::parse(line));
      for (const char* key : {"seconds", "tokens_per_second", "peak_rss_bytes"})
        lines.back().erase(key);
      if (lines.back().contains("held_out")) lines.back()["held_out"].erase("seconds");
    }
    return lines;
  }
  Json report(const std::string& out) const {
    return read_json(folder_.file(out + "/slmc_report.json"));
  }

  test::TemporaryFolder folder_;
};

TEST_F(TrainingRanks, WriteTheBytesAndTheLossesOfOneProcess) {
  ASSERT_EQ(run_slmc(distill("one")).exit_code, 0);
  for (const int ranks : {2, 3}) {
    const auto run = run_on(ranks, distill("out", {{"--force", ""}}));
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_TRUE(weights("one") == weights("out")) << ranks;
    EXPECT_EQ(metrics("one"), metrics("out")) << ranks;
  }
}

TEST_F(TrainingRanks, MeasureOnTheWayAndStopTogether) {
  const Options measured{{"--eval-text", folder_.file("text.txt")},
                         {"--eval-every", "4"},
                         {"--eval-tokens", "128"},
                         {"--patience", "1"},
                         {"--steps", "40"},
                         {"--lr", "0.05"}};
  ASSERT_EQ(run_slmc(distill("one", measured)).exit_code, 0);
  const auto run = run_on(2, distill("two", measured));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(metrics("one"), metrics("two"));
  EXPECT_EQ(report("one")["training"]["stopped_early"], report("two")["training"]["stopped_early"]);
  EXPECT_TRUE(weights("one") == weights("two"));
}

TEST_F(TrainingRanks, OfAnAdapterAndOfTrainedScalesWriteTheBytesOfOneProcess) {
  const Options lora{{folder_.file("teacher"), ""},
                     {"--data", folder_.file("text.txt")},
                     {"--lora", "r=4,alpha=8,dropout=0.1"},
                     {"--context", "32"},
                     {"--batch", "8"},
                     {"--micro-batch", "1"},
                     {"--steps", "6"},
                     {"-q", ""}};
  const auto finetune = [&](const std::string& out) {
    Options options = lora;
    options["-o"] = folder_.file(out);
    return test::command_line({"finetune"}, options);
  };
  const auto alone = run_slmc(finetune("one"));
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const auto shared = run_on(2, finetune("two"));
  ASSERT_EQ(shared.exit_code, 0) << shared.err;
  const std::string adapter = "/adapter_model.safetensors";
  EXPECT_TRUE(test::read_file(folder_.file("one" + adapter)) ==
              test::read_file(folder_.file("two" + adapter)));

  const Options rounded{{"--quantize", "q8_0"}, {"--qat", ""}, {"--steps", "6"}};
  ASSERT_EQ(run_slmc(distill("one.gguf", rounded)).exit_code, 0);
  const auto run = run_on(2, distill("two.gguf", rounded));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const std::string one = test::read_file(folder_.file("one.gguf")),
                    two = test::read_file(folder_.file("two.gguf"));
  // The file's name is in it.
  EXPECT_EQ(one.size(), two.size());
  EXPECT_TRUE(one.substr(one.size() / 2) == two.substr(two.size() / 2));
}

// Each samples its share; steps that share a refresh, and one that resumes on another number of
// ranks, find the samples of all.
TEST_F(TrainingRanks, LearningFromTheirOwnSamplesWriteTheBytesOfOneProcess) {
  const Options sampled{{"--loss", "reverse_kl"}, {"--on-policy", "0.7"},
                        {"--sample-every", "4"},  {"--batch", "7"},
                        {"--steps", "30"},        {"--eval-text", folder_.file("text.txt")},
                        {"--eval-tokens", "128"}};
  ASSERT_EQ(run_slmc(distill("one", sampled)).exit_code, 0);
  for (const int ranks : {2, 3}) {
    Options again = sampled;
    again["--force"] = "";
    const auto run = run_on(ranks, distill("out", again));
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_TRUE(weights("one") == weights("out")) << ranks;
    EXPECT_EQ(report("one")["training"]["on_policy"]["sampled_tokens"],
              report("out")["training"]["on_policy"]["sampled_tokens"]);
    EXPECT_GT(report("out")["training"]["on_policy"]["sampled_tokens"].get<int>(), 0);
  }
  Options saved = sampled;
  saved["--checkpoint-every"] = "3";
  Arguments arguments = distill("killed", saved);
  const auto ended =
      run_ranks({arguments, arguments},
                {folder_.file("killed.training.partial/state.safetensors"), 1, SIGKILL});
  ASSERT_EQ(ended[1].exit_code, 128 + SIGKILL);
  arguments.push_back("--resume");
  const auto rest = run_on(3, arguments);
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_GE(report("killed")["training"]["resumed_at_step"].get<int>(), 3);
  EXPECT_TRUE(weights("one") == weights("killed"));
}

TEST_F(TrainingRanks, ARankThatIsKilledEndsTheOthersWhichGoOnLaterOnAnyNumber) {
  ASSERT_EQ(run_slmc(distill("whole", {{"--steps", "60"}})).exit_code, 0);
  int killed = 0, resumed_on = 3;
  for (const std::string name : {"a", "b"}) {
    Arguments arguments = distill(name, {{"--steps", "60"}, {"--checkpoint-every", "3"}});
    const auto ended =
        run_ranks({arguments, arguments},
                  {folder_.file(name + ".training.partial/state.safetensors"), killed, SIGKILL});
    EXPECT_EQ(ended[killed].exit_code, 128 + SIGKILL);
    const ProgramResult& other = ended[1 - killed];
    EXPECT_EQ(other.exit_code, 5) << other.err;
    EXPECT_EQ(std::count(other.err.begin(), other.err.end(), '\n'), 1) << other.err;
    EXPECT_NE(other.err.find(killed == 1 ? "rank 1 of 2 is gone" : "rank 0 at 127.0.0.1"),
              std::string::npos)
        << other.err;
    EXPECT_NE(other.err.find("--resume goes on from the last checkpoint"), std::string::npos)
        << other.err;
    EXPECT_FALSE(fs::exists(folder_.file(name)));
    arguments.push_back("--resume");
    const auto rest = resumed_on == 1 ? run_slmc(arguments) : run_on(resumed_on, arguments);
    ASSERT_EQ(rest.exit_code, 0) << rest.err;
    EXPECT_GE(report(name)["training"]["resumed_at_step"].get<int>(), 3);
    EXPECT_TRUE(weights("whole") == weights(name));
    killed = 1;
    resumed_on = 1;
  }
}

/// Ranks that this process starts exchange through `library`.
class WithNccl {
 public:
  explicit WithNccl(const std::string& library) { setenv("SLMC_NCCL", library.c_str(), 1); }
  ~WithNccl() { unsetenv("SLMC_NCCL"); }
};

TEST_F(TrainingRanks, ThroughNcclWriteTheBytesOfOneProcess) {
  ASSERT_EQ(run_slmc(distill("one")).exit_code, 0);
  const WithNccl fake(SLMC_FAKE_NCCL);
  for (const int ranks : {2, 3}) {
    const auto run = run_on(ranks, distill("out", {{"--force", ""}}));
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_EQ(report("out")["training"]["ranks"],
              Json({{"size", ranks}, {"carrier", "NCCL 2.0.0"}}));
    EXPECT_TRUE(weights("one") == weights("out"));
  }
  // Its moments are gathered and sent too.
  Arguments arguments = distill("killed", {{"--steps", "60"}, {"--checkpoint-every", "3"}});
  ASSERT_EQ(run_slmc(distill("whole", {{"--steps", "60"}})).exit_code, 0);
  const auto ended =
      run_ranks({arguments, arguments},
                {folder_.file("killed.training.partial/state.safetensors"), 1, SIGKILL});
  EXPECT_EQ(ended[0].exit_code, 5) << ended[0].err;
  EXPECT_NE(ended[0].err.find("rank 1 of 2 is gone"), std::string::npos) << ended[0].err;
  arguments.push_back("--resume");
  const auto rest = run_on(3, arguments);
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_TRUE(weights("whole") == weights("killed"));
}

TEST_F(TrainingRanks, ThatWereAskedToUseNcclAndCannotSayWhy) {
  for (const auto& [library, reason] :
       {std::pair{folder_.file("none.so"), std::string("SLMC_NCCL: it cannot be opened")},
        std::pair{std::string("libm.so.6"), std::string("libm.so.6 has no ncclGetVersion")}}) {
    const WithNccl other(library);
    const auto run = run_ranks({distill("out"), distill("out")});
    for (const ProgramResult& each : run) {
      EXPECT_EQ(each.exit_code, 4) << each.err;
      EXPECT_NE(each.err.find(reason), std::string::npos) << each.err;
    }
  }
}

TEST_F(TrainingRanks, InterruptedLeaveOneCheckpoint) {
  ASSERT_EQ(run_slmc(distill("whole", {{"--steps", "60"}})).exit_code, 0);
  const Arguments arguments = distill("out", {{"--steps", "60"}});
  // One process goes on as two, of which one alone is told to stop.
  const auto alone =
      test::run_and_signal(SLMC_PROGRAM, arguments, folder_.file("out.metrics.jsonl"), SIGINT);
  ASSERT_EQ(alone.exit_code, 130) << alone.err;
  const Arguments resumed = distill("out", {{"--steps", "60"}, {"--resume", ""}});
  fs::remove(folder_.file("out.metrics.jsonl"));
  const auto two = run_ranks({resumed, resumed}, {folder_.file("out.metrics.jsonl"), 1, SIGINT});
  EXPECT_EQ(two[0].exit_code, 130) << two[0].err;
  EXPECT_EQ(two[1].exit_code, 130) << two[1].err;
  EXPECT_TRUE(fs::exists(folder_.file("out.training.partial/state.safetensors")));
  const auto rest = run_on(2, resumed);
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_TRUE(weights("whole") == weights("out"));
}

TEST_F(TrainingRanks, ThatWereNotStartedAlikeAreRefused) {
  const auto other = run_ranks({distill("out"), distill("out", {{"--lr", "0.5"}})});
  for (const ProgramResult& each : other) {
    EXPECT_EQ(each.exit_code, 2);
    EXPECT_NE(each.err.find("rank 1 of 2"), std::string::npos) << each.err;
    EXPECT_NE(each.err.find("lr was 0.001 and is 0.5"), std::string::npos) << each.err;
  }
  // What one cannot begin, the others learn.
  const auto missing = run_ranks({distill("out"), distill("out", {{"--data", "no-such-file"}})});
  for (const ProgramResult& each : missing) {
    EXPECT_EQ(each.exit_code, 3);
    EXPECT_NE(each.err.find("no-such-file"), std::string::npos) << each.err;
  }
  EXPECT_FALSE(fs::exists(folder_.file("out")));
  const auto many = run_on(2, distill("out", {{"--lanes", "1"}}));
  EXPECT_EQ(many.exit_code, 2);
  EXPECT_NE(many.err.find("has only 1 lanes"), std::string::npos) << many.err;
}

TEST_F(TrainingRanks, OnlyRankZeroForetells) {
  for (const char* how : {"--dry-run", "--dry-run=measured"}) {
    const auto run = run_on(2, distill("out", {{how, ""}}));
    EXPECT_EQ(run.exit_code, 0) << run.err;
    EXPECT_NE(run.out.find("steps"), std::string::npos) << run.out;
  }
}

TEST_F(TrainingRanks, OfARecipeShareItsTrainingOnly) {
  const std::string recipe = folder_.write("recipe.yaml", R"(
name: shared
output: out
stages:
  - name: student
    distill: {teacher: teacher, student: "layers:2", data: [text.txt], output: student,
              context: 32, batch: 8, steps: 6}
  - name: file
    quantize: {model: "@student", output: model.gguf, scheme: q8_0}
)");
  for (const bool shared : {false, true}) {
    const Arguments arguments{"run", recipe, "-o", folder_.file(shared ? "two" : "one"), "-q"};
    const auto run = shared ? run_on(2, arguments) : run_slmc(arguments);
    ASSERT_EQ(run.exit_code, 0) << run.err;
  }
  const auto bytes = [&](const std::string& out) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.file(out)))
      if (entry.path().extension() == ".gguf" || entry.path().extension() == ".safetensors")
        files[fs::relative(entry.path(), folder_.file(out)).string()] =
            test::read_file(entry.path().string());
    return files;
  };
  EXPECT_GE(bytes("one").size(), 2u);
  EXPECT_TRUE(bytes("one") == bytes("two"));
}

}  // namespace
}  // namespace slmc
