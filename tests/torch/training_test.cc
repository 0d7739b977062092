// Training as a user runs it: resuming to the bit, dividing the work differently, stopping with a
// reason.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>

#include "compress/core/json.h"
#include "formats/model.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using test::kill_and_resume;
using test::Options;
using test::run_slmc;

class Training : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("teacher"), {.layers = 4, .context = 64});
    folder_.write("text.txt", test::text_by_rule(3000));
  }
  /// The usual run with some options changed.
  std::vector<std::string> arguments(const std::string& out, const Options& changes = {}) const {
    return test::distill_command(folder_, out, changes);
  }
  std::string weights(const std::string& out) const {
    return test::read_file(folder_.file(out + "/model.safetensors"));
  }
  std::vector<float> values(const std::string& out, const std::string& name) const {
    const auto model = Model::open(folder_.file(out));
    std::vector<float> result(static_cast<size_t>(model->view(name).elements()));
    model->read_rows(name, 0, model->view(name).rows(), result.data());
    return result;
  }
  Json report(const std::string& out) const {
    return read_json(folder_.file(out + "/slmc_report.json"));
  }

  test::TemporaryFolder folder_;
};

TEST_F(Training, KilledAndResumedWritesTheSameBytesOnAnyNumberOfThreads) {
  ASSERT_EQ(run_slmc(arguments("whole", {{"--threads", "2"}})).exit_code, 0);
  const auto resumed =
      kill_and_resume(arguments("killed", {{"--threads", "1"}}), folder_.file("killed"));
  ASSERT_EQ(resumed.exit_code, 0);
  EXPECT_GE(report("killed")["training"]["resumed_at_step"].get<int>(), 3);
  EXPECT_TRUE(weights("whole") == weights("killed"));
}

// A single lane divides its products, the head's and the losses among the threads, in pieces that
// do not depend on their number; it learns what two lanes learn.
TEST_F(Training, OneLaneGivesTheSameBytesOnAnyNumberOfThreads) {
  test::write_tiny_model(folder_.file("wide"),
                         {.layers = 2, .hidden = 256, .ffn = 512, .context = 64});
  const std::map<std::string, std::string> common{{"--teacher", folder_.file("wide")},
                                                  {"--student", "layers:1"},
                                                  {"--steps", "4"},
                                                  {"--lanes", "1"},
                                                  {"--recompute", ""}};
  const auto run = [&](const std::string& out, const std::string& option,
                       const std::string& value) {
    auto changes = common;
    changes[option] = value;
    const auto result = run_slmc(arguments(out, changes));
    ASSERT_EQ(result.exit_code, 0) << result.err;
  };
  run("one", "--threads", "1");
  for (const char* threads : {"2", "7"}) {
    run(std::string("many") + threads, "--threads", threads);
    EXPECT_TRUE(weights("one") == weights(std::string("many") + threads)) << threads;
  }
  run("lanes", "--lanes", "2");
  const double loss = report("one")["training"]["final_loss"];
  // Sums in another order.
  EXPECT_NEAR(report("lanes")["training"]["final_loss"].get<double>(), loss, 1e-5 * loss);
}

// Products of bf16 differ from those of float32, the weights behind them do not lose what bf16
// could not hold: at this rate most steps are smaller than half of a weight's last place in bf16.
TEST_F(Training, ProductsInBf16LeaveTheWeightsInFloat32) {
  const std::map<std::string, std::string> small{{"--lr", "1e-6"}, {"--student", "layers:4"}};
  auto narrow = small;
  narrow["--dtype"] = "bf16";
  ASSERT_EQ(run_slmc(arguments("wide", small)).exit_code, 0);
  const auto run = run_slmc(arguments("narrow", narrow));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_FALSE(weights("wide") == weights("narrow"));
  const double wide = report("wide")["training"]["final_cross_entropy"];
  EXPECT_NEAR(report("narrow")["training"]["final_cross_entropy"].get<double>(), wide, 0.01 * wide);
  const std::vector<float> before = values("teacher", "blk.1.ffn_up.weight"),
                           after = values("narrow", "blk.1.ffn_up.weight");
  int64_t moved = 0, too_little_for_bf16 = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    moved += before[i] != after[i];
    too_little_for_bf16 += std::abs(after[i] - before[i]) < std::abs(before[i]) / 512;
  }
  const auto count = static_cast<int64_t>(before.size());
  EXPECT_GT(moved, count * 9 / 10);
  EXPECT_GT(too_little_for_bf16, count / 2);
}

// Projections are resumed with their moments; weights of the losses follow from the step.
TEST_F(Training, KilledAndResumedWithHiddenStatesWritesTheSameBytes) {
  test::write_tiny_model(folder_.file("narrow"), {.layers = 2, .hidden = 32, .context = 64});
  const Options options{
      {"--student", folder_.file("narrow")},
      {"--dtype", "bf16"},
      {"--loss", "forward_kl:0.5..1,mse_hidden:1..0@0.5,cosine_hidden(layers=1:3):0.3"}};
  const auto whole = run_slmc(arguments("whole", options));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto resumed = kill_and_resume(arguments("killed", options), folder_.file("killed"));
  ASSERT_EQ(resumed.exit_code, 0);
  EXPECT_GE(report("killed")["training"]["resumed_at_step"].get<int>(), 3);
  EXPECT_TRUE(weights("whole") == weights("killed"));
  const Json losses = report("whole")["training"]["final_losses"];
  EXPECT_EQ(losses.size(), 3u) << losses;
  EXPECT_EQ(losses, report("killed")["training"]["final_losses"]);
}

// The same student starts as its teacher, so what its blocks give is the same.
TEST_F(Training, HiddenStatesOfTheTeacherItselfAreNoLoss) {
  const auto run = run_slmc(arguments("out", {{"--student", "layers:4"},
                                              {"--steps", "1"},
                                              {"--lr", "0"},
                                              {"--loss", "mse_hidden,cosine_hidden"}}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json losses = report("out")["training"]["final_losses"];
  EXPECT_NEAR(losses["mse_hidden"].get<double>(), 0, 1e-9);
  EXPECT_NEAR(losses["cosine_hidden"].get<double>(), 0, 1e-6);
}

// The cache is the runtime's work, the live teacher LibTorch's: their logits differ by rounding,
// which 24 steps of AdamW carry on.
TEST_F(Training, FromACacheOfAllTokensIsAsFromTheLiveTeacher) {
  ASSERT_EQ(run_slmc({"prune", folder_.file("teacher"), "-o", folder_.file("student"), "--layers",
                      "2", "-q"})
                .exit_code,
            0);
  const auto captured =
      run_slmc({"capture", folder_.file("teacher"), "--data", folder_.file("text.txt"), "-o",
                folder_.file("cache"), "--context", "32", "--top-k", "0", "--values", "f32",
                "--hidden", "1,3", "--seed", "5", "-q"});
  ASSERT_EQ(captured.exit_code, 0) << captured.err;
  for (const char* loss :
       {"forward_kl", "jsd", "mse_hidden", "forward_kl:0.5,cosine_hidden(layers=0:3+1:1):0.5"}) {
    const std::map<std::string, std::string> same{{"--student", folder_.file("student")},
                                                  {"--temperature", "2"},
                                                  {"--loss", loss},
                                                  {"--force", ""}};
    ASSERT_EQ(run_slmc(arguments("live", same)).exit_code, 0);
    auto cached = same;
    cached["--teacher"] = folder_.file("cache");
    const auto run = run_slmc(arguments("cached", cached));
    ASSERT_EQ(run.exit_code, 0) << run.err;
    const double live = report("live")["training"]["final_loss"];
    EXPECT_NEAR(live, report("cached")["training"]["final_loss"].get<double>(), 1e-4 * live);
  }
  // Blocks that were not captured, in this cache and in one without any.
  std::map<std::string, std::string> lacking{{"--student", folder_.file("student")},
                                             {"--teacher", folder_.file("cache")},
                                             {"--loss", "mse_hidden(layers=0:0)"}};
  auto blocks = run_slmc(arguments("refused", lacking));
  EXPECT_EQ(blocks.exit_code, 2);
  EXPECT_NE(blocks.err.find("block 0; capture again with --hidden"), std::string::npos)
      << blocks.err;
  ASSERT_EQ(run_slmc({"capture", folder_.file("teacher"), "--data", folder_.file("text.txt"), "-o",
                      folder_.file("plain"), "--context", "32", "-q"})
                .exit_code,
            0);
  lacking["--teacher"] = folder_.file("plain");
  blocks = run_slmc(arguments("refused", lacking));
  EXPECT_NE(blocks.err.find("distributions only"), std::string::npos) << blocks.err;
  // Other text than was captured.
  folder_.write("other.txt", test::text_by_rule(2000));
  const auto refused = run_slmc(arguments("refused", {{"--student", folder_.file("student")},
                                                      {"--teacher", folder_.file("cache")},
                                                      {"--data", folder_.file("other.txt")}}));
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_NE(refused.err.find("captured on other text"), std::string::npos) << refused.err;
}

TEST_F(Training, FromACacheHoldsWindowsBackToMeasureOn) {
  ASSERT_EQ(run_slmc({"prune", folder_.file("teacher"), "-o", folder_.file("student"), "--layers",
                      "2", "-q"})
                .exit_code,
            0);
  ASSERT_EQ(run_slmc({"capture", folder_.file("teacher"), "--data", folder_.file("text.txt"), "-o",
                      folder_.file("cache"), "--context", "32", "--top-k", "16", "-q"})
                .exit_code,
            0);
  const auto run = run_slmc(arguments("out", {{"--student", folder_.file("student")},
                                              {"--teacher", folder_.file("cache")},
                                              {"--eval-windows", "10"},
                                              {"--eval-every", "12"}}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json held_out = report("out")["training"]["held_out"];
  ASSERT_EQ(held_out.size(), 2u);
  EXPECT_EQ(held_out[0]["tokens"], 320);
  EXPECT_LT(held_out[1]["distillation"], held_out[0]["distillation"]);
}

TEST_F(Training, InterruptedLeavesACheckpointAndResumesToTheSameBytes) {
  ASSERT_EQ(run_slmc(arguments("whole")).exit_code, 0);
  const auto first = test::run_and_signal(SLMC_PROGRAM, arguments("stopped"),
                                          folder_.file("stopped.metrics.jsonl"), SIGINT);
  ASSERT_EQ(first.exit_code, 130) << first.err;
  EXPECT_TRUE(fs::exists(folder_.file("stopped.training.partial/state.safetensors")));
  ASSERT_EQ(run_slmc(arguments("stopped", {{"--resume", ""}})).exit_code, 0);
  EXPECT_TRUE(weights("whole") == weights("stopped"));
}

// Unless it is quiet a long run is probed first; nothing of that may stay.
TEST_F(Training, TheForecastLeavesTheRunAsItIs) {
  const auto quiet = arguments("quiet", {{"--steps", "60"}});
  auto told = arguments("told", {{"--steps", "60"}});
  std::erase(told, "-q");
  ASSERT_EQ(run_slmc(quiet).exit_code, 0);
  const auto run = run_slmc(told);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.err.find("training will take about"), std::string::npos) << run.err;
  EXPECT_TRUE(weights("quiet") == weights("told"));

  told.push_back("--dry-run=measured");
  const auto forecast = run_slmc(told);
  EXPECT_EQ(forecast.exit_code, 0) << forecast.err;
  EXPECT_NE(forecast.out.find("by a probe of"), std::string::npos) << forecast.out;
}

TEST_F(Training, ResumingUnderOtherOptionsIsRefusedUnlessDriftIsAllowed) {
  const auto first = test::run_and_signal(SLMC_PROGRAM, arguments("out"),
                                          folder_.file("out.metrics.jsonl"), SIGINT);
  ASSERT_EQ(first.exit_code, 130) << first.err;
  const auto refused = run_slmc(arguments("out", {{"--resume", ""}, {"--lr", "0.5"}}));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("lr was 0.001 and is 0.5"), std::string::npos) << refused.err;
  EXPECT_EQ(run_slmc(arguments("out", {{"--resume", ""}, {"--lr", "0.002"}, {"--allow-drift", ""}}))
                .exit_code,
            0);
}

// Its figures so far, and the best of the files, would be of something else.
TEST_F(Training, ResumingWithAnotherProductIsRefused) {
  const Options measured{{"--eval-text", folder_.file("text.txt")},
                         {"--eval-every", "1"},
                         {"--checkpoint-every", "3"}};
  const auto first =
      test::run_and_signal(SLMC_PROGRAM, arguments("out", measured),
                           folder_.file("out.training.partial/state.safetensors"), SIGKILL);
  ASSERT_EQ(first.exit_code, 128 + SIGKILL) << first.err;
  folder_.write("other.txt", test::text_by_rule(2000));
  Options changes = measured;
  changes["--resume"] = "";
  for (const auto& [option, value] :
       Options{{"--eval-text", folder_.file("other.txt")}, {"--save-dtype", "bf16"}}) {
    Options all = changes;
    all[option] = value;
    const auto refused = run_slmc(arguments("out", all));
    EXPECT_EQ(refused.exit_code, 2) << option;
    EXPECT_NE(refused.err.find(option == "--eval-text" ? "eval_text was" : "save_dtype was"),
              std::string::npos)
        << refused.err;
  }
}

TEST_F(Training, TextThatIsTooShortToMeasureOnIsRefusedBeforeTheFirstStep) {
  folder_.write("short.txt", "too little");
  const auto result = run_slmc(arguments("out", {{"--eval-text", folder_.file("short.txt")}}));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("less than a window"), std::string::npos) << result.err;
  EXPECT_FALSE(fs::exists(folder_.file("out.metrics.jsonl")));
}

// A product that cannot be written costs no training: the checkpoint goes on to the same bytes.
TEST_F(Training, AProductThatCannotBeWrittenLeavesACheckpoint) {
  const std::string file = folder_.file("out.gguf"), way = folder_.file("out.candidate.gguf/x");
  ASSERT_EQ(run_slmc(arguments("whole.gguf")).exit_code, 0);
  fs::create_directories(way);
  const auto failed = run_slmc(arguments("out.gguf"));
  EXPECT_NE(failed.exit_code, 0);
  EXPECT_FALSE(fs::exists(file));
  EXPECT_TRUE(fs::exists(file + ".training.partial/state.safetensors")) << failed.err;
  fs::remove_all(folder_.file("out.candidate.gguf"));
  const auto resumed = run_slmc(arguments("out.gguf", {{"--resume", ""}}));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  const auto whole = Model::open(folder_.file("whole.gguf")), out = Model::open(file);
  EXPECT_EQ(whole->content_hash(), out->content_hash());
  const Json once = read_json(folder_.file("whole.gguf.report.json"))["training"];
  EXPECT_GT(once["final_loss"].get<double>(), 0);
  for (const char* figure : {"final_loss", "final_cross_entropy", "final_losses"})
    EXPECT_EQ(read_json(file + ".report.json")["training"][figure], once[figure]) << figure;
}

TEST_F(Training, AccumulationEqualsOneBigBatch) {
  ASSERT_EQ(run_slmc(arguments("big", {{"--steps", "6"}})).exit_code, 0);
  ASSERT_EQ(run_slmc(arguments("small", {{"--steps", "6"},
                                         {"--batch", "2"},
                                         {"--accumulation", "4"},
                                         {"--micro-batch", "1"},
                                         {"--lanes", "3"}}))
                .exit_code,
            0);
  for (const char* name : {"token_embd.weight", "blk.1.ffn_down.weight", "output_norm.weight"}) {
    const std::vector<float> a = values("big", name), b = values("small", name);
    // Sums in another order; AdamW divides by the gradient's size, so entries with tiny gradients
    // may move by a part of lr = 1e-3.
    double apart = 0;
    for (size_t i = 0; i < a.size(); ++i)
      apart += std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    EXPECT_LE(apart / static_cast<double>(a.size()), 2e-6) << name;
  }
}

TEST_F(Training, TheReportNamesWhatWentInByItsHash) {
  ASSERT_EQ(run_slmc(arguments("out", {{"--steps", "2"}, {"--student", folder_.file("teacher")}}))
                .exit_code,
            0);
  const std::string hash = Model::open(folder_.file("teacher"))->content_hash();
  const Json inputs = report("out")["inputs"];
  EXPECT_EQ(inputs["teacher"]["hash"], hash);
  EXPECT_EQ(inputs["student"]["hash"], hash);
  EXPECT_EQ(inputs["data"]["files"], Json({folder_.file("text.txt")}));
  EXPECT_FALSE(inputs["data"]["hash"].get<std::string>().empty());
}

TEST_F(Training, LearnsTheRuleOfTheText) {
  const auto result = run_slmc(arguments("out", {{"--loss", "cross_entropy"},
                                                 {"--steps", "60"},
                                                 {"--lr", "0.01"},
                                                 {"--eval-text", folder_.file("text.txt")}}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  // Two continuations of about 4.5 tokens each time: an ideal model needs ln 2 a word.
  EXPECT_LT(report("out")["training"]["held_out"].back()["perplexity"].get<double>(), 2.0);
}

TEST_F(Training, AStudentOfAllLayersAgreesWithItsTeacherAtOnce) {
  ASSERT_EQ(run_slmc(arguments("out", {{"--student", "layers:4"},
                                       {"--steps", "1"},
                                       {"--lr", "0"},
                                       {"--ce-weight", "0"}}))
                .exit_code,
            0);
  EXPECT_NEAR(report("out")["training"]["final_distillation"].get<double>(), 0.0, 1e-6);
  EXPECT_EQ(values("out", "blk.3.ffn_up.weight"), values("teacher", "blk.3.ffn_up.weight"));
}

TEST_F(Training, ADivergingRunStopsNamingTheStep) {
  const auto result = run_slmc(arguments("out", {{"--lr", "1e30"}, {"--clip", "0"}}));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("step "), std::string::npos) << result.err;
  EXPECT_FALSE(fs::exists(folder_.file("out")));
}

TEST_F(Training, ZerosStayZeroWhenAskedTo) {
  // A sparse student: the runtime's reader sees plain weights, so zeros are written into a copy's
  // bytes by training with rate 0.
  test::write_tiny_model(folder_.file("sparse"),
                         {.layers = 2, .context = 64, .dtype = DType::kF32});
  std::string bytes = test::read_file(folder_.file("sparse/model.safetensors"));
  const size_t begin = 8 + *reinterpret_cast<const uint64_t*>(bytes.data());
  for (size_t i = begin; i + 4 <= bytes.size(); i += 20)
    bytes.replace(i, 4, std::string(4, '\0'));  // Every fifth value: no whole column.
  folder_.write("sparse/model.safetensors", bytes);
  ASSERT_EQ(
      run_slmc(arguments("out", {{"--student", folder_.file("sparse")}, {"--keep-sparsity", ""}}))
          .exit_code,
      0);
  ASSERT_EQ(run_slmc(arguments("dense", {{"--student", folder_.file("sparse")}})).exit_code, 0);
  const auto zeros = [&](const std::string& model) {
    const std::vector<float> all = values(model, "blk.0.ffn_up.weight");
    return std::count(all.begin(), all.end(), 0.0f);
  };
  EXPECT_EQ(zeros("out"), zeros("sparse"));
  EXPECT_EQ(zeros("dense"), 0);
}

}  // namespace
}  // namespace slmc
