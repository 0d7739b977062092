// Rotations: that they are orthogonal, that a rotated model computes what it did, and what cannot
// be turned.
#include <cmath>

#include "compress/runtime/decoder.h"
#include "quantize/rotate_stage.h"
#include "quantize/rotation.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

std::vector<float> logits_of(const std::string& path) {
  const auto model = Model::open(path);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 40; ++i)
    ids.push_back(static_cast<int32_t>(i * 37 % model->arch().vocab));
  std::vector<float> logits(ids.size() * static_cast<size_t>(model->arch().vocab));
  const auto decoder = Decoder::create(*model, Activations::kF32);
  decoder->forward(*decoder->new_cache(40), ids, logits.data(), false);
  return logits;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return largest;
}

RotateStage rotate_stage(const std::string& model, const std::string& output, bool untie) {
  RotateStage stage;
  stage.options.model = model;
  stage.options.output = output;
  stage.options.untie = untie;
  return stage;
}

Report rotate(RotateStage& stage, Context context = {}) {
  return stage.run(stage.plan({}), context);
}

TEST(Rotation, IsOrthogonalAndMixesAllChannels) {
  for (const int64_t n : {1, 2, 7, 12, 64, 80, 96}) {
    const Rotation rotation(n, 3);
    std::vector<std::vector<double>> rows;
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> x(static_cast<size_t>(n), 0.0);
      x[static_cast<size_t>(i)] = 1;
      rotation.apply(x.data());
      rows.push_back(x);
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double dot = 0;
        for (size_t k = 0; k < static_cast<size_t>(n); ++k)
          dot += rows[static_cast<size_t>(i)][k] * rows[static_cast<size_t>(j)][k];
        EXPECT_NEAR(dot, i == j ? 1 : 0, 1e-12) << n;
      }
      for (const double value : rows[static_cast<size_t>(i)])
        EXPECT_NE(value, 0) << n << ": a channel that does not reach another";
    }
  }
}

TEST(Rotate, TheModelComputesWhatItDid) {
  const std::vector<TinyModel> models = {
      {.tied = false, .attention_bias = true, .mlp_bias = true},
      {.hidden = 96, .ffn = 160, .heads = 6, .kv_heads = 2, .tied = true, .dtype = DType::kBF16},
      {.family = "qwen2", .tied = true, .dtype = DType::kF16}};
  for (const TinyModel& tiny : models) {
    TemporaryFolder folder;
    write_tiny_model(folder.file("model"), tiny);
    const std::vector<float> expected = logits_of(folder.file("model"));
    for (const auto& parts :
         std::vector<std::vector<std::string>>{{"residual"}, {"value"}, {"residual", "value"}}) {
      for (const std::string output : {"out.gguf", "out"}) {
        const bool residual = parts.front() == "residual";
        RotateStage stage =
            rotate_stage(folder.file("model"), folder.file(output), tiny.tied && residual);
        stage.options.rotate = parts;
        const Report report = rotate(stage, {.force = true});
        EXPECT_LT(largest_difference(logits_of(folder.file(output)), expected), 1e-3);
        EXPECT_LT(report.at("logit_difference").get<double>(), 1e-3);
        const auto written = Model::open(folder.file(output));
        EXPECT_EQ(written->arch().tied, tiny.tied && !residual);
        const auto weights_of = [](const Model& model, const std::string& name) {
          const TensorInfo& info = model.info(name);
          std::vector<float> values(static_cast<size_t>(element_count(info.shape)));
          model.read_rows(name, 0, element_count(info.shape) / info.shape.back(), values.data());
          return values;
        };
        const auto source = Model::open(folder.file("model"));
        if (residual) {
          for (const float weight : weights_of(*written, "blk.1.ffn_norm.weight"))
            EXPECT_EQ(weight, 1.0f);
        }
        // That something was turned at all.
        EXPECT_GT(largest_difference(weights_of(*written, "blk.1.attn_v.weight"),
                                     weights_of(*source, "blk.1.attn_v.weight")),
                  0.01);
      }
    }
  }
}

TEST(Rotate, EveryFixtureOfAFamilyThatCanBeTurned) {
  for (const char* name : {"qwen3", "qwen3_biased", "mistral", "phi3_short", "llama_llama3"}) {
    TemporaryFolder folder;
    const std::string model = std::string(SLMC_FIXTURES "/models/") + name;
    RotateStage stage = rotate_stage(model, folder.file("out"), Model::open(model)->arch().tied);
    rotate(stage);
    EXPECT_LT(largest_difference(logits_of(folder.file("out")), logits_of(model)), 1e-3) << name;
  }
}

TEST(Rotate, BytesDependOnTheSeedAndNotOnThreads) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.tied = false});
  RotateStage stage = rotate_stage(folder.file("model"), folder.file("out.gguf"), false);
  const int before = threads();
  std::string first;
  for (const int count : {1, 2, 7}) {
    set_threads(count);
    rotate(stage, {.seed = 5, .force = true});
    if (first.empty()) first = slurp(folder.file("out.gguf"));
    EXPECT_EQ(slurp(folder.file("out.gguf")), first) << count;
  }
  set_threads(before);
  rotate(stage, {.seed = 6, .force = true});
  EXPECT_NE(slurp(folder.file("out.gguf")), first);
}

TEST(Rotate, RefusesWhatItWouldChange) {
  TemporaryFolder folder;
  const auto refused = [&](const std::string& model, const auto& change, ExitCode expected,
                           const std::string& part) {
    RotateStage stage = rotate_stage(model, folder.file("out"), false);
    change(stage.options);
    const auto [code, message] = failure_of([&] { stage.plan({}); });
    EXPECT_EQ(code, expected) << message;
    EXPECT_TRUE(contains(message, part)) << message;
  };
  const auto as_it_is = [](RotateOptions&) {};
  const std::string fixtures = SLMC_FIXTURES "/models/";
  refused(fixtures + "gemma3", as_it_is, ExitCode::kUnsupported, "norms");
  refused(fixtures + "gpt2", as_it_is, ExitCode::kUnsupported, "norms");
  refused(fixtures + "bert_masked", as_it_is, ExitCode::kUnsupported, "encoder");
  refused(fixtures + "llama_tied", as_it_is, ExitCode::kUnsupported, "--untie");
  refused(
      fixtures + "llama_untied", [](RotateOptions& o) { o.untie = true; }, ExitCode::kUsage,
      "head of its own");
  refused(
      fixtures + "llama_untied", [](RotateOptions& o) { o.rotate.clear(); }, ExitCode::kUsage,
      "residual, value");
}

}  // namespace
}  // namespace slmc::test
