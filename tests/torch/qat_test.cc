// Quantization-aware training: the network that is trained is the one that is written.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/core/json.h"
#include "compress/core/random.h"
#include "compress/core/torch_module.h"
#include "distill/training.h"
#include "quantize/stage.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

using Floats = std::vector<float>;
using test::run_slmc;

Floats floats(const WeightSource& source, const std::string& name) {
  const TensorView view = source.view(name);
  Floats values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  return values;
}

struct Step {
  double loss = 0;
  std::map<std::string, Floats> trained;
};

/// One plain gradient step (AdamW with a huge epsilon) of rate 1 on the text alone.
Step one_step(const std::shared_ptr<const WeightSource>& model, const StoredTypes& stored) {
  const test::TemporaryFolder folder;
  TrainingJob job;
  job.student = job.start = model;
  job.layout = parameter_layout(model->arch());
  job.stored = stored;
  const double epsilon = 1e6;
  job.adam = {.beta1 = 0, .beta2 = 0, .epsilon = epsilon, .weight_decay = 0, .clip = 0};
  job.rate = {.peak = epsilon, .min_ratio = 1, .warmup = 0, .steps = 1, .decay = Decay::kConstant};
  job.steps = 1;
  Random random(3);
  TokenizedDocument document;
  for (int i = 0; i < 40; ++i) {
    document.ids.push_back(
        static_cast<int32_t>(random.below(static_cast<uint64_t>(model->arch().vocab))));
    document.learned.push_back(true);
  }
  job.data = pack_documents({document}, 13, 0, false, 0);
  job.windows_per_step = job.data.windows;
  job.real_vocab = model->arch().vocab;
  job.checkpoint_folder = folder.file("checkpoint");
  job.product.path = folder.file("out");
  Step step;
  job.product.write = [&](const WeightSource& trained, const std::string& path) {
    for (const ParameterSlot& slot : job.layout.slots)
      step.trained[slot.name] = floats(trained, slot.name);
    test::spit(path, "");
  };
  Context context;
  step.loss = torch_module(context).train(job, context)["final_loss"];
  return step;
}

// The loss is that of the file that quantize writes, and the step is the one that the file's
// decoded weights would take, added to the weights behind them.
TEST(Qat, GivesTheLossAndTheGradientsOfTheWrittenFile) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("model"),
                         {.layers = 2, .hidden = 64, .ffn = 96, .dtype = DType::kF32});
  const auto model = Model::open(folder.file("model"));
  QuantizeStage stage;
  stage.options.model = folder.file("model");
  stage.options.output = folder.file("q.gguf");
  stage.options.scheme = "q4_0";
  Context context;
  stage.run(stage.plan({}), context);
  const auto file = Model::open(folder.file("q.gguf"));
  auto decoded = std::make_shared<MemoryWeights>(model->arch());
  for (const TensorInfo& info : file->tensors()) {
    auto values = std::make_shared<Floats>(floats(*file, info.name));
    decoded->add(info.name, {.data = reinterpret_cast<const std::byte*>(values->data()),
                             .dtype = DType::kF32,
                             .shape = info.shape,
                             .owner = values});
  }
  const Step plain = one_step(decoded, {});
  const Step through =
      one_step(model, stored_types(model->arch(), "q4_0", DType::kF32, folder.file("q.gguf")));
  const Step unrounded = one_step(model, {});
  EXPECT_EQ(through.loss, plain.loss);
  EXPECT_NE(through.loss, unrounded.loss);
  for (const auto& [name, after] : plain.trained) {
    const Floats from = floats(*decoded, name), start = floats(*model, name),
                 to = through.trained.at(name);
    // Each difference is rounded at the weight's size, 6e-8 of about 0.1.
    for (size_t i = 0; i < after.size(); ++i)
      ASSERT_NEAR(after[i] - from[i], to[i] - start[i], 1e-6) << name << " " << i;
  }
}

class QatRuns : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("model"),
                           {.layers = 2, .hidden = 128, .ffn = 256, .context = 64});
    folder_.write("text.txt", test::text_by_rule(3000));
  }
  std::vector<std::string> arguments(const std::string& out, std::vector<std::string> more) const {
    std::vector<std::string> all{"distill",
                                 "--teacher",
                                 folder_.file("model"),
                                 "--student",
                                 folder_.file("model"),
                                 "--data",
                                 folder_.file("text.txt"),
                                 "-o",
                                 folder_.file(out),
                                 "--context",
                                 "32",
                                 "--batch",
                                 "4",
                                 "--ce-weight",
                                 "0",
                                 "--seed",
                                 "5",
                                 "-q"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Json eval(const std::string& model) const {
    const auto result =
        run_slmc({"eval", folder_.file(model), "--against", folder_.file("model"), "--text",
                  folder_.file("text.txt"), "--context", "32", "--max-tokens", "2048",
                  "--activations", "f32", "--json", "-", "-q"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "eval");
  }
  test::TemporaryFolder folder_;
};

// Into a GGUF and into a folder of compressed-tensors: what is measured on the way is the file's,
// and rounding costs less than before.
TEST_F(QatRuns, LosesLessThanRoundingAndSaysWhatTheFileIsWorth) {
  struct Case {
    std::string scheme, scales, out, plain;
  };
  for (const Case& each : {Case{"q4_0", "learned", "qat.gguf", "plain.gguf"},
                           Case{"q4_0", "searched", "searched.gguf", "plain2.gguf"},
                           Case{"w4a16", "learned", "qat", "plain"}}) {
    ASSERT_EQ(run_slmc({"quantize", folder_.file("model"), "-o", folder_.file(each.plain),
                        "--scheme", each.scheme, "-q"})
                  .exit_code,
              0);
    const auto run = run_slmc(arguments(
        each.out, {"--quantize", each.scheme, "--qat", "--qat-scales", each.scales, "--steps", "60",
                   "--lr", "2e-4", "--weight-decay", "0", "--eval-text", folder_.file("text.txt"),
                   "--eval-every", "30", "--eval-tokens", "2048"}));
    ASSERT_EQ(run.exit_code, 0) << run.err;
    const Json report = read_json(folder_.file(
        each.out.ends_with(".gguf") ? each.out + ".report.json" : each.out + "/slmc_report.json"));
    const Json best = report["evaluation"], again = eval(each.out);
    for (const char* key : {"kld_mean", "kld_max", "top1_agreement"})
      EXPECT_EQ(best["against"][key], again["against"][key]) << each.scheme << " " << key;
    EXPECT_LT(again["against"]["kld_mean"].get<double>(),
              0.5 * eval(each.plain)["against"]["kld_mean"].get<double>())
        << each.scheme;
  }
}

// A quantized file as the start, at a rate that moves nothing: its bytes come back.
TEST_F(QatRuns, GoesOnFromAQuantizedFile) {
  ASSERT_EQ(
      run_slmc({"quantize", folder_.file("model"), "-o", folder_.file("start.gguf"), "--scheme",
                "q4_k_m", "--method", "gptq", "--calibration", folder_.file("text.txt"),
                "--calibration-tokens", "512", "--calibration-context", "32", "-q"})
          .exit_code,
      0);
  auto again =
      arguments("again.gguf", {"--quantize", "q4_k_m", "--qat", "--steps", "2", "--lr", "0"});
  *(std::find(again.begin(), again.end(), "--student") + 1) = folder_.file("start.gguf");
  const auto run = run_slmc(again);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const auto start = Model::open(folder_.file("start.gguf")),
             end = Model::open(folder_.file("again.gguf"));
  for (const TensorInfo& info : start->tensors())
    EXPECT_EQ(floats(*start, info.name), floats(*end, info.name)) << info.name;
}

TEST_F(QatRuns, KilledAndResumedWritesTheSameBytes) {
  const std::vector<std::string> options{"--quantize", "q4_0", "--qat", "--steps", "20"};
  ASSERT_EQ(run_slmc(arguments("whole.gguf", options)).exit_code, 0);
  const auto resumed =
      test::kill_and_resume(arguments("killed.gguf", options), folder_.file("killed.gguf"));
  ASSERT_EQ(resumed.exit_code, 0);
  const auto whole = Model::open(folder_.file("whole.gguf")),
             again = Model::open(folder_.file("killed.gguf"));
  for (const TensorInfo& info : whole->tensors())
    EXPECT_EQ(whole->tensor_hash(info.name), again->tensor_hash(info.name)) << info.name;
}

TEST_F(QatRuns, ErrorsSayWhatToDo) {
  const auto refused = [&](const std::string& out, std::vector<std::string> more) {
    more.push_back("--dry-run");
    const auto result = run_slmc(arguments(out, std::move(more)));
    EXPECT_NE(result.exit_code, 0);
    return result.err;
  };
  EXPECT_NE(refused("x.gguf", {"--qat"}).find("--quantize"), std::string::npos);
  EXPECT_NE(refused("x", {"--qat", "--quantize", "q4_0"}).find("x.gguf"), std::string::npos);
  EXPECT_NE(refused("x.gguf", {"--qat", "--quantize", "w4a16"}).find("folder"), std::string::npos);
  const auto adapter = run_slmc({"finetune", folder_.file("model"), "--data",
                                 folder_.file("text.txt"), "-o", folder_.file("x.gguf"), "--merge",
                                 "--qat", "--quantize", "q4_0", "--context", "32", "--dry-run"});
  EXPECT_NE(adapter.err.find("--full"), std::string::npos) << adapter.err;
  const auto upper =
      run_slmc({"finetune", folder_.file("model"), "--data", folder_.file("text.txt"), "-o",
                folder_.file("x.gguf"), "--full", "--train-layers", "last:1", "--qat", "--quantize",
                "q4_0", "--context", "32", "--dry-run"});
  EXPECT_NE(upper.err.find("--train-layers"), std::string::npos) << upper.err;
}

}  // namespace
}  // namespace slmc
