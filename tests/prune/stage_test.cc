// The prune stage on tiny models: every metric, both kinds of pruning, and what the pruned model
// computes.
#include "prune/stage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <tuple>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/runtime/decoder.h"
#include "formats/model.h"
#include "prune/metric.h"
#include "prune/structure.h"
#include "tests/support/tiny_model.h"

namespace slmc::test {
namespace {

namespace fs = std::filesystem;

PruneStage prune_stage(const std::string& model, const std::string& output) {
  PruneStage stage;
  stage.options.model = model;
  stage.options.output = output;
  return stage;
}

Report prune(PruneStage& stage, Context context = {}) { return stage.run(stage.plan({}), context); }

template <typename Action>
std::pair<ExitCode, std::string> failure_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ExitCode::kOk, ""};
}

std::vector<float> weight_of(const Model& model, const std::string& name) {
  const std::vector<int64_t> shape = model.info(name).shape;
  std::vector<float> values(static_cast<size_t>(element_count(shape)));
  model.read_rows(name, 0, element_count(shape) / shape.back(), values.data());
  return values;
}

TensorView own(const std::vector<float>& values, const std::vector<int64_t>& shape) {
  const auto copy = std::make_shared<std::vector<float>>(values);
  return {reinterpret_cast<const std::byte*>(copy->data()), DType::kF32, shape, copy};
}

/// A model's tensors in memory, each changed by `edit(name, shape, values)`.
template <typename Edit>
MemoryWeights edited(const Model& model, const Edit& edit) {
  MemoryWeights weights(model.arch());
  for (const TensorInfo& info : model.tensors()) {
    std::vector<float> values = weight_of(model, info.name);
    edit(info.name, info.shape, values);
    weights.add(info.name, own(values, info.shape));
  }
  return weights;
}

std::vector<float> logits_of(const WeightSource& weights) {
  const std::vector<int32_t> ids = {0, 17, 300, 5, 42, 99, 7, 256};
  const auto decoder = Decoder::create(weights, Activations::kF32);
  const auto cache = decoder->new_cache(static_cast<int64_t>(ids.size()));
  std::vector<float> logits(ids.size() * static_cast<size_t>(weights.arch().vocab));
  decoder->forward(*cache, ids, logits.data(), false);
  return logits;
}

/// In f32 mode a weight of zero adds exactly nothing, and sums run in order of the inputs: taking
/// it out may change only the rounding of sums that are split, so the tolerance is a few units in
/// the last place of logits of size 10.
void expect_same_logits(const WeightSource& a, const WeightSource& b) {
  const std::vector<float> x = logits_of(a), y = logits_of(b);
  ASSERT_EQ(x.size(), y.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(x[i])));
    difference =
        std::max(difference, std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
  }
  EXPECT_GT(largest, 0.1);
  EXPECT_LT(difference, 1e-5 * std::max(1.0, largest));
}

std::vector<TinyModel> tiny_models() {
  return {{.family = "llama", .layers = 3, .ffn = 160, .tied = true, .dtype = DType::kBF16},
          {.family = "llama",
           .layers = 3,
           .ffn = 160,
           .tied = false,
           .attention_bias = true,
           .mlp_bias = true,
           .dtype = DType::kF32},
          {.family = "qwen2",
           .layers = 3,
           .ffn = 160,
           .tied = true,
           .dtype = DType::kF16,
           .shards = 2}};
}

TEST(PruneMetrics, GiveExactSparsityInEveryLinearLayer) {
  for (const TinyModel& tiny : tiny_models()) {
    TemporaryFolder folder;
    write_tiny_model(folder.file("model"), tiny);
    const auto source = Model::open(folder.file("model"));
    for (const Metric* metric : metrics()) {
      for (const std::string sparsity : {"0.5", "0.25", "2:4", "4:8"}) {
        SCOPED_TRACE(metric->name + " " + sparsity);
        PruneStage stage = prune_stage(folder.file("model"), folder.file("out"));
        stage.options.metric = metric->name;
        stage.options.sparsity = sparsity;
        const Report report = prune(stage, {.force = true});
        const auto written = Model::open(folder.file("out"));
        EXPECT_EQ("", architecture_difference(source->arch(), written->arch()));
        int64_t masked = 0;
        for (const TensorInfo& info : written->tensors()) {
          const std::vector<float> before = weight_of(*source, info.name),
                                   after = weight_of(*written, info.name);
          EXPECT_EQ(info.dtype, source->info(info.name).dtype);
          const bool linear = layer_of(info.name) >= 0 && info.shape.size() == 2;
          int64_t zeros = 0;
          for (size_t i = 0; i < before.size(); ++i) {
            if (after[i] == 0.0f && before[i] != 0.0f) ++zeros;
            if (after[i] != 0.0f) {
              ASSERT_EQ(before[i], after[i]) << info.name;
            }
          }
          const auto expected = static_cast<int64_t>((sparsity == "0.25" ? 0.25 : 0.5) *
                                                     static_cast<double>(before.size()));
          EXPECT_EQ(zeros, linear ? expected : 0) << info.name;
          masked += linear ? 1 : 0;
        }
        EXPECT_EQ(report.at("tensors").size(), static_cast<size_t>(masked));
        EXPECT_NEAR(report.at("sparsity").get<double>(), sparsity == "0.25" ? 0.25 : 0.5, 1e-3);
      }
    }
  }
}

TEST(PruneMetrics, ReallyShrinkTheModel) {
  for (const TinyModel& tiny : tiny_models()) {
    TemporaryFolder folder;
    write_tiny_model(folder.file("model"), tiny);
    const auto source = Model::open(folder.file("model"));
    for (const Metric* metric : metrics()) {
      for (const std::string output : {"out", "out.gguf"}) {
        PruneStage stage = prune_stage(folder.file("model"), folder.file(output));
        stage.options.metric = metric->name;
        stage.options.ffn_ratio = 0.5;
        stage.options.keep_layers = "0,2";
        const Plan plan = stage.plan({});
        Context context;
        context.force = true;
        const Report report = stage.run(plan, context);
        const auto written = Model::open(folder.file(output));
        EXPECT_EQ(written->arch().ffn, 96);  // ceil(80) up to a multiple of 32.
        EXPECT_EQ(written->arch().layers, 2);
        EXPECT_EQ(written->arch().parameters, report.at("parameters_after").get<int64_t>());
        EXPECT_LT(written->arch().parameters, source->arch().parameters);
        uint64_t bytes = 0;
        for (const PlanRow& row : plan.rows) bytes += row.bytes_after;
        uint64_t stored = 0;
        for (const TensorInfo& info : written->tensors()) stored += info.bytes;
        EXPECT_EQ(bytes, stored);
        EXPECT_EQ(report.at("layers").at(1).at("from_layer"), 2);

        // The same computation as the full model with the dropped neurons at zero, in the layers
        // that stay.
        MemoryWeights masked(
            reduced_architecture(source->arch(), {.layers = {0, 2}, .ffn = source->arch().ffn}));
        const Structure kept{.layers = {0, 2}, .ffn = source->arch().ffn};
        std::map<int64_t, std::vector<int64_t>> neurons;
        for (const int64_t layer : kept.layers) {
          double share = 0;
          neurons[layer] = choose_neurons(*source, *metric, layer, 96, share);
        }
        for (const TensorInfo& info : source->tensors()) {
          const std::string name = reduced_name(info.name, kept);
          if (name.empty()) continue;
          std::vector<float> values = weight_of(*source, info.name);
          const int64_t layer = layer_of(info.name), ffn = source->arch().ffn;
          const NeuronAxis axis = neuron_axis(info.name);
          if (axis != NeuronAxis::kNone) {
            std::vector<bool> stays(static_cast<size_t>(ffn), false);
            for (const int64_t neuron : neurons[layer]) stays[static_cast<size_t>(neuron)] = true;
            for (size_t i = 0; i < values.size(); ++i) {
              const auto columns = static_cast<size_t>(info.shape.back());
              const size_t neuron =
                  axis == NeuronAxis::kRows && info.shape.size() == 2 ? i / columns : i % columns;
              if (!stays[neuron]) values[i] = 0.0f;
            }
          }
          masked.add(name, own(values, info.shape));
        }
        expect_same_logits(masked, *written);
      }
    }
  }
}

TEST(Prune, TakesOutNeuronsOfZeroWeightWithoutAChange) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.ffn = 128, .dtype = DType::kF32});
  // Every other neuron is set to zero, by hand in the file.
  std::string bytes = slurp(folder.file("model") + "/model.safetensors");
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  const Json header = Json::parse(bytes.substr(8, size));
  for (const auto& [name, entry] : header.items()) {
    if (name.find(".mlp.") == std::string::npos) continue;
    const bool down = name.find("down_proj") != std::string::npos;
    const auto columns = entry.at("shape")[1].get<uint64_t>(),
               rows = entry.at("shape")[0].get<uint64_t>();
    for (uint64_t i = 0; i < rows * columns; ++i) {
      const uint64_t neuron = down ? i % columns : i / columns;
      if (neuron % 2 == 1)
        std::memset(bytes.data() + 8 + size + entry.at("data_offsets")[0].get<uint64_t>() + 4 * i,
                    0, 4);
    }
  }
  spit(folder.file("model") + "/model.safetensors", bytes);
  PruneStage stage = prune_stage(folder.file("model"), folder.file("out"));
  stage.options.ffn_ratio = 0.5;
  const Report report = prune(stage);
  const auto source = Model::open(folder.file("model")), written = Model::open(folder.file("out"));
  EXPECT_EQ(written->arch().ffn, 64);
  EXPECT_EQ(report.at("layers").at(0).at("kept_score_share"), 1.0);
  expect_same_logits(*source, *written);
}

TEST(Prune, KeepsWhatLayersAreAskedFor) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.layers = 5});
  PruneStage stage = prune_stage(folder.file("model"), folder.file("out"));
  stage.options.layers = 3;
  prune(stage);
  const auto source = Model::open(folder.file("model")), written = Model::open(folder.file("out"));
  EXPECT_EQ(written->arch().layers, 3);
  EXPECT_EQ(written->config().at("num_hidden_layers"), 3);
  EXPECT_EQ(weight_of(*written, "blk.1.attn_q.weight"), weight_of(*source, "blk.2.attn_q.weight"));
  EXPECT_EQ(weight_of(*written, "blk.2.ffn_norm.weight"),
            weight_of(*source, "blk.4.ffn_norm.weight"));
}

TEST(Prune, WritesTheSameBytesOnAnyNumberOfThreads) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 128, .ffn = 512, .dtype = DType::kBF16});
  std::map<std::string, std::string> first;
  for (const int count : {1, 2, 7}) {
    set_threads(count);
    for (const std::string kind : {"0.5", "2:4", "ffn"}) {
      PruneStage stage = prune_stage(folder.file("model"), folder.file("out.gguf"));
      (kind == "ffn" ? stage.options.keep_layers : stage.options.sparsity) =
          kind == "ffn" ? "1" : kind;
      if (kind == "ffn") stage.options.ffn_ratio = 0.4;
      prune(stage, {.force = true});
      const std::string bytes = slurp(folder.file("out.gguf"));
      if (count == 1) first[kind] = bytes;
      EXPECT_TRUE(first[kind] == bytes) << kind << " on " << count << " threads";
    }
  }
  set_threads(0);
}

TEST(AddMetric, MetricsOfTheCallersAreUsed) {
  add_metric({.name = "last_columns",
              .summary = "for a test",
              .needs = {},
              .scope = MaskScope::kRow,
              .score = [](const MetricRequest& request, float* scores) {
                for (int64_t i = 0; i < request.out * request.in; ++i)
                  scores[i] = static_cast<float>(i % request.in) - 1000.0f;
              }});
  EXPECT_THROW(add_metric(metric_by_name("last_columns")), Error);
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {});
  PruneStage stage = prune_stage(folder.file("model"), folder.file("out"));
  stage.options.metric = "last_columns";
  stage.options.sparsity = "0.25";
  prune(stage);
  const std::vector<float> weight =
      weight_of(*Model::open(folder.file("out")), "blk.0.attn_q.weight");
  for (size_t i = 0; i < weight.size(); ++i) EXPECT_EQ(weight[i] == 0.0f, i % 64 < 16) << i;
}

TEST(PruneErrors, SayWhatIsWrongBeforeAnythingIsWritten) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {});
  const auto plan_with = [&](const auto& set) {
    PruneStage stage = prune_stage(folder.file("model"), folder.file("out"));
    set(stage.options);
    return failure_of([&] { stage.plan({}); });
  };
  EXPECT_EQ(plan_with([](PruneOptions&) {}).first, ExitCode::kUsage);
  EXPECT_EQ(plan_with([](PruneOptions& o) { o.sparsity = "0.5", o.layers = 1; }).first,
            ExitCode::kUsage);
  EXPECT_EQ(plan_with([](PruneOptions& o) { o.layers = 1, o.keep_layers = "0"; }).first,
            ExitCode::kUsage);
  EXPECT_EQ(plan_with([](PruneOptions& o) { o.layers = 9; }).first, ExitCode::kUsage);
  EXPECT_EQ(plan_with([](PruneOptions& o) { o.keep_layers = "0,9"; }).first, ExitCode::kUsage);
  EXPECT_EQ(plan_with([](PruneOptions& o) { o.sparsity = "half"; }).first, ExitCode::kUsage);
  const auto [metric_code, metric_message] =
      plan_with([](PruneOptions& o) { o.metric = "magnitud", o.sparsity = "0.5"; });
  EXPECT_EQ(metric_code, ExitCode::kUsage);
  EXPECT_NE(metric_message.find("magnitude"), std::string::npos);
  const auto [code, message] = plan_with([](PruneOptions& o) { o.sparsity = "2:5"; });
  EXPECT_EQ(code, ExitCode::kUnsupported);
  EXPECT_NE(message.find("groups of 5"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder.file("out")));
}

TEST(PruneErrors, NameTheWeightThatIsNotFinite) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {});
  std::string bytes = slurp(folder.file("model") + "/model.safetensors");
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  const Json header = Json::parse(bytes.substr(8, size));
  const float bad = -INFINITY;
  const uint64_t at =
      header.at("model.layers.0.mlp.down_proj.weight").at("data_offsets")[0].get<uint64_t>() +
      4 * (96 * 2 + 11);
  std::memcpy(bytes.data() + 8 + size + at, &bad, 4);
  spit(folder.file("model") + "/model.safetensors", bytes);
  for (const bool structured : {false, true}) {
    PruneStage stage = prune_stage(folder.file("model"), folder.file("out"));
    if (structured) stage.options.ffn_ratio = 0.5;
    if (!structured) stage.options.sparsity = "0.5";
    const auto [code, message] = failure_of([&] { prune(stage); });
    EXPECT_EQ(code, ExitCode::kBadInput);
    EXPECT_NE(message.find("blk.0.ffn_down.weight[2, 11] is -inf"), std::string::npos) << message;
    EXPECT_FALSE(fs::exists(folder.file("out")) || fs::exists(folder.file("out.partial")));
  }
}

}  // namespace
}  // namespace slmc::test
