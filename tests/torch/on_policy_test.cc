// On-policy distillation as a user runs it: resuming to the bit, what it leaves alone, what it
// refuses, and what it is good for.
#include <gtest/gtest.h>

#include "compress/core/json.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

using test::kill_and_resume;
using test::Options;
using test::run_slmc;

class OnPolicyRun : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("teacher"), {.layers = 4, .context = 64});
    folder_.write("text.txt", test::text_by_rule(1500));
  }
  /// The usual run with some options changed.
  std::vector<std::string> arguments(const std::string& out, const Options& changes = {}) const {
    Options all = changes;
    all.insert({"--loss", "reverse_kl"});
    return test::distill_command(folder_, out, all);
  }
  std::string weights(const std::string& out) const {
    return test::read_file(folder_.file(out + "/model.safetensors"));
  }
  Json training(const std::string& out) const {
    return read_json(folder_.file(out + "/slmc_report.json"))["training"];
  }
  /// Runs with 2 threads, and with 1 and a kill on the way, and expects the same bytes.
  void expect_same_after_kill(Options options) const {
    options["--threads"] = "2";
    const auto whole = run_slmc(arguments("whole", options));
    ASSERT_EQ(whole.exit_code, 0) << whole.err;
    options["--threads"] = "1";
    const auto resumed = kill_and_resume(arguments("killed", options), folder_.file("killed"));
    ASSERT_EQ(resumed.exit_code, 0);
    EXPECT_GE(training("killed")["resumed_at_step"].get<int>(), 3);
    EXPECT_TRUE(weights("whole") == weights("killed"));
    EXPECT_GT(training("whole")["on_policy"]["sampled_tokens"].get<int>(), 0);
    EXPECT_GT(training("whole")["on_policy"]["sampling_share"].get<double>(), 0);
  }
  test::TemporaryFolder folder_;
};

TEST_F(OnPolicyRun, KilledAndResumedWritesTheSameBytesOnAnyNumberOfThreads) {
  expect_same_after_kill({{"--on-policy", "0.5"}});
}

// Checkpoints fall between two refreshes: the samples of steps to come are in them.
TEST_F(OnPolicyRun, KilledBetweenRefreshesWritesTheSameBytes) {
  expect_same_after_kill({{"--on-policy", "1"},
                          {"--sample-every", "8"},
                          {"--sample-tokens", "20"},
                          {"--sample-temperature", "0.8"},
                          {"--isolate-documents", ""}});
}

TEST_F(OnPolicyRun, WithLambdaZeroNothingChanges) {
  ASSERT_EQ(run_slmc(arguments("plain")).exit_code, 0);
  ASSERT_EQ(run_slmc(arguments("zero", {{"--on-policy", "0"}, {"--sample-every", "3"}})).exit_code,
            0);
  ASSERT_EQ(run_slmc(arguments("half", {{"--on-policy", "0.5"}})).exit_code, 0);
  EXPECT_TRUE(weights("plain") == weights("zero"));
  EXPECT_FALSE(weights("plain") == weights("half"));
  const std::string metrics = test::read_file(folder_.file("half.metrics.jsonl"));
  EXPECT_NE(metrics.find("\"sampling_share\""), std::string::npos) << metrics;
}

// Judged by itself the student has nothing to learn from what it says.
TEST_F(OnPolicyRun, AStudentOfAllLayersAgreesWithItsTeacherOnWhatItSays) {
  const auto run = run_slmc(arguments(
      "out", {{"--student", "layers:4"}, {"--steps", "2"}, {"--lr", "0"}, {"--on-policy", "1"}}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NEAR(training("out")["final_loss"].get<double>(), 0, 1e-6);
}

TEST_F(OnPolicyRun, WantsATeacherThatRunsAndALossThatItJudges) {
  const auto refused = [&](const Options& changes) {
    auto options = changes;
    options["--on-policy"] = "0.5";
    const auto run = run_slmc(arguments("refused", options));
    EXPECT_EQ(run.exit_code, 2) << run.err;
    return run.err;
  };
  ASSERT_EQ(run_slmc({"capture", folder_.file("teacher"), "--data", folder_.file("text.txt"), "-o",
                      folder_.file("cache"), "--context", "32", "--top-k", "16", "-q"})
                .exit_code,
            0);
  EXPECT_NE(refused({{"--teacher", folder_.file("cache")}, {"--student", folder_.file("teacher")}})
                .find("give --teacher MODEL, as"),
            std::string::npos);
  EXPECT_NE(refused({{"--loss", "cross_entropy"}}).find("a loss over distributions"),
            std::string::npos);
  EXPECT_NE(refused({{"--sample-tokens", "32"}}).find("less than the window's 32"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc
