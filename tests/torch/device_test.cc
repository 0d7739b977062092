// Training in LibTorch's operators, which every device has, beside our kernels, which are checked
// against finite differences, PyTorch and PEFT; and on a GPU, where there is one.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/golden.h"
#include "tests/support/gradient_step.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

using test::GradientStep;

/// Two windows of random ids, one of them of two documents that do not see each other.
PackedData windows(int64_t vocab, int64_t context) {
  const std::vector<int32_t> ids = testing::golden_prompt(2 * context + 1, vocab);
  TokenizedDocument first, second;
  first.ids.assign(ids.begin(), ids.begin() + context / 2);
  second.ids.assign(ids.begin() + context / 2, ids.end());
  for (TokenizedDocument* document : {&first, &second})
    for (size_t i = 0; i < document->ids.size(); ++i) document->learned.push_back(i % 5 != 1);
  return pack_documents({first, second}, context, 0, false, 0);
}

TrainingJob job_of(const std::shared_ptr<const Model>& model) {
  TrainingJob job;
  job.student = job.start = model;
  job.layout = parameter_layout(model->arch());
  job.data = windows(model->arch().vocab, 80);  // The fixtures' attention windows end inside.
  job.micro_windows = 2;
  job.head_rows = 7;
  job.real_vocab = model->arch().vocab;
  return job;
}

/// `relative`: to a gradient's own size; below is what a step's rounding and the order of sums
/// leave of a gradient that is small beside its tensor's others.
void expect_alike(const GradientStep& ours, const GradientStep& theirs, double relative) {
  EXPECT_NEAR(ours.loss, theirs.loss, relative * theirs.loss);
  ASSERT_EQ(ours.gradients.size(), theirs.gradients.size());
  for (const auto& [name, gradient] : theirs.gradients) {
    const test::Apart found = test::apart(ours.gradients.at(name), gradient);
    EXPECT_LE(found.distance, relative * found.size + 1e-5) << name << " of " << found.size;
  }
}

/// The job in LibTorch's operators, and on a GPU, beside our kernels.
void expect_alike_everywhere(const TrainingJob& job, double relative = 1e-3) {
  const GradientStep kernels = test::gradient_step(job);
  for (const auto& way : test::training_ways()) {
    if (!way.plain_operators) continue;
    const GradientStep plain = test::gradient_step(job, way);
    expect_alike(plain, kernels, relative);
    if (job.student->arch().norm == NormKind::kLayer) continue;  // All LibTorch's either way.
    EXPECT_TRUE(plain.gradients != kernels.gradients) << "are they other operators?";
  }
}

class PlainOperators : public ::testing::TestWithParam<std::string> {};

TEST_P(PlainOperators, GiveTheGradientsOfOurKernels) {
  expect_alike_everywhere(
      job_of(Model::open(std::string(SLMC_FIXTURES) + "/models/" + GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Fixtures, PlainOperators, ::testing::ValuesIn(testing::golden_names()),
                         [](const auto& test) { return test.param; });

TEST(PlainTraining, LearnsFromATeacherAndItsHiddenStates) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("student"), {.layers = 2});
  test::write_tiny_model(folder.file("teacher"), {.layers = 3, .seed = 5});
  TrainingJob job = job_of(Model::open(folder.file("student")));
  job.teacher = Model::open(folder.file("teacher"));
  job.loss = {
      .loss = "forward_kl,cosine_hidden", .weight = 0.6, .ce_weight = 0.4, .temperature = 2};
  expect_alike_everywhere(job);
  job.recompute = true;
  expect_alike_everywhere(job);
  job.bf16 = true;  // Products round alike, but what goes into them need not.
  expect_alike_everywhere(job, 0.02);
}

TEST(PlainTraining, DropsTheSameOfAnAdaptersInput) {
  const auto base = Model::open(std::string(SLMC_FIXTURES) + "/models/llama_untied");
  LoraAdapter adapter = read_lora(std::string(SLMC_FIXTURES) + "/lora/llama", base->arch());
  TrainingJob job = job_of(base);
  job.layout = lora_layout(adapter.lora);
  job.start = adapter.values;
  adapter.lora.dropout = 0.4;
  job.lora = std::make_shared<const Lora>(adapter.lora);
  expect_alike_everywhere(job);
  job.bf16 = true;
  expect_alike_everywhere(job, 0.02);
  job.bf16 = false;
  const GradientStep dropped = test::gradient_step(job);
  adapter.lora.dropout = 0;
  job.lora = std::make_shared<const Lora>(adapter.lora);
  EXPECT_GT(std::abs(test::gradient_step(job).loss - dropped.loss), 1e-4);
}

TEST(PlainTraining, KeepsWhatFrozenLayersGive) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("model"), {.layers = 3});
  TrainingJob job = job_of(Model::open(folder.file("model")));
  job.layout = upper_layout(job.student->arch(), 2);
  job.frozen_states_folder = folder.path();
  expect_alike_everywhere(job);
}

// CUDA's libraries take a third of a gigabyte by being there.
TEST(TrainingDevice, TheCpuNeedsNothingOfCudas) {
  namespace fs = std::filesystem;
  const test::ScratchFolder folder;
  const std::string torch = folder.file("torch");
  fs::create_directories(torch + "/lib");
  for (const auto& entry : fs::directory_iterator(SLMC_LIBTORCH "/lib"))
    if (entry.path().filename() != "libtorch_cuda.so")
      fs::create_symlink(entry.path(), torch + "/lib/" + entry.path().filename().string());
  // Wheels look there for what NVIDIA's own hold.
  if (fs::exists(SLMC_LIBTORCH "/../nvidia"))
    fs::create_symlink(SLMC_LIBTORCH "/../nvidia", folder.file("nvidia"));
  folder.write("torch/lib/libtorch_cuda.so", "no library");
  const std::vector<std::string> arguments{
      "logits",    std::string(SLMC_FIXTURES) + "/models/llama_tied",
      "--ids",     "1,2",
      "-o",        folder.file("logits.npy"),
      "--backend", "torch",
      "--torch",   torch};
  const auto on_cpu = test::run_slmc(arguments);
  EXPECT_EQ(on_cpu.exit_code, 0) << on_cpu.err;
  std::vector<std::string> elsewhere = arguments;
  elsewhere.insert(elsewhere.end(), {"--device", "cuda", "--force"});
  const auto on_gpu = test::run_slmc(elsewhere);
  EXPECT_EQ(on_gpu.exit_code, 4);
  EXPECT_NE(on_gpu.err.find("libtorch_cuda.so: file too short"), std::string::npos) << on_gpu.err;
}

TEST(TrainingDevice, ThatIsNotThereIsRefusedBeforeTheWork) {
  const std::string device = test::no_gpu().empty() ? "cuda:99" : "cuda";
  const test::ScratchFolder folder;
  test::write_tiny_model(folder.file("teacher"), {});
  test::spit(folder.file("text.txt"), test::text_by_rule(600));
  for (const bool dry : {true, false}) {
    test::Options changes{{"--device", device}};
    if (dry) changes["--dry-run"] = "";
    const auto refused = test::run_slmc(test::distill_command(folder, "never", changes));
    EXPECT_EQ(refused.exit_code, 4);
    EXPECT_NE(refused.err.find("--device " + device + ": this "), std::string::npos) << refused.err;
    EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;
  }
  const auto refused =
      test::run_slmc({"finetune", folder.file("teacher"), "--lora", "r=2", "--data",
                      folder.file("text.txt"), "-o", folder.file("never"), "--device", device});
  EXPECT_EQ(refused.exit_code, 4) << refused.err;
  EXPECT_FALSE(std::filesystem::exists(folder.file("never")));
}

TEST(TrainingDevice, AGpuTrainsFromTheCommandLine) {
  if (const std::string missing = test::no_gpu(); !missing.empty()) GTEST_SKIP() << missing;
  const test::ScratchFolder folder;
  test::write_tiny_model(folder.file("teacher"), {});
  test::spit(folder.file("text.txt"), test::text_by_rule(600));
  double losses[2] = {};
  for (const std::string device : {"cpu", "cuda"}) {
    const std::string report = folder.file(device + ".json");
    const auto run = test::run_slmc(
        test::distill_command(folder, device, {{"--device", device}, {"--json", report}}));
    ASSERT_EQ(run.exit_code, 0) << run.err;
    losses[device == "cpu" ? 0 : 1] = read_json(report)["training"]["final_loss"];
  }
  EXPECT_NEAR(losses[0], losses[1], 0.01 * losses[0]);  // After 24 steps.
}

}  // namespace
}  // namespace slmc
