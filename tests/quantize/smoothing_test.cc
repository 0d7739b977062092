// AWQ and SmoothQuant against an independent double-precision reference
// (tests/fixtures/quantize/smoothing.py), and on whole models: scaling changes nothing before
// rounding, and what it says it did it did.
#include "quantize/smoothing.h"

#include <cmath>
#include <cstring>

#include "compress/runtime/decoder.h"
#include "formats/group_types.h"
#include "quantize/input_statistics.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

struct Reference {
  Json json = Json::parse(slurp(SLMC_SOURCE_DIR "/tests/fixtures/quantize/smoothing.json"));
  int64_t columns = json.at("columns"), tokens = json.at("tokens");
  std::vector<float> inputs = json.at("inputs");
  std::vector<std::vector<float>> weights = json.at("weights");
  LinearStatistics statistics;
  MethodOptions options;

  Reference() {
    InputStatistics gather("layer", columns, true);
    gather.add(inputs.data(), tokens);
    statistics = std::move(gather).finish();
  }

  SmoothRequest request(DType type) const {
    SmoothRequest request{.columns = columns,
                          .statistics = &statistics,
                          .options = &options,
                          .kernels = &encode_kernels()};
    for (const std::vector<float>& weight : weights)
      request.layers.push_back(
          {weight.data(), static_cast<int64_t>(weight.size()) / columns, &block_codec(type)});
    return request;
  }

  /// Codes and the rounded weights, scales taken off again.
  void round(const Method& method, DType type, const std::vector<float>& scales, size_t layer,
             std::vector<int>& codes, std::vector<float>& values) const {
    std::vector<float> scaled = weights[layer];
    for (size_t i = 0; i < scaled.size(); ++i)
      scaled[i] *= scales[i % static_cast<size_t>(columns)];
    LinearStatistics seen;
    seen.tokens = tokens;
    for (size_t c = 0; c < scales.size(); ++c) {
      seen.input_squares.push_back(statistics.input_squares[c] / (scales[c] * scales[c]));
      for (size_t i = 0; i < scales.size(); ++i)
        seen.hessian.push_back(statistics.hessian[c * scales.size() + i] / (scales[c] * scales[i]));
    }
    const BlockCodec& codec = block_codec(type);
    const auto rows = static_cast<int64_t>(scaled.size()) / columns;
    std::vector<std::byte> encoded(dtype_row_bytes(type, columns) * static_cast<size_t>(rows));
    Distortion lost{};
    method.encode({.weight = scaled.data(),
                   .rows = rows,
                   .columns = columns,
                   .grid = &codec,
                   .statistics = method.needs.empty() ? nullptr : &seen,
                   .kernels = &encode_kernels()},
                  encoded.data(), &lost);
    values.resize(scaled.size());
    codec.decode(encoded.data(), rows * columns, values.data());
    BlockParts parts;
    for (int64_t b = 0; b < rows * columns / codec.block; ++b) {
      codec.layout->unpack(encoded.data() + b * codec.block_bytes, parts);
      codes.insert(codes.end(), parts.codes, parts.codes + codec.block);
    }
    for (size_t i = 0; i < values.size(); ++i)
      values[i] /= scales[i % static_cast<size_t>(columns)];
  }

  /// Mean over tokens of the squared difference of a layer's outputs.
  double loss(size_t layer, const std::vector<float>& values) const {
    const std::vector<float>& weight = weights[layer];
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (size_t r = 0; r * static_cast<size_t>(columns) < weight.size(); ++r) {
        double difference = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const size_t i = r * static_cast<size_t>(columns) + static_cast<size_t>(c);
          difference += (double{values[i]} - double{weight[i]}) *
                        double{inputs[static_cast<size_t>(t * columns + c)]};
        }
        sum += difference * difference;
      }
    }
    return sum / static_cast<double>(tokens);
  }
};

void expect_equal_codes(const std::vector<int>& found, const Json& expected) {
  const auto codes = expected.get<std::vector<int>>();
  ASSERT_EQ(found.size(), codes.size());
  size_t equal = 0;
  for (size_t i = 0; i < codes.size(); ++i) equal += found[i] == codes[i];
  EXPECT_GE(static_cast<double>(equal), 0.99 * static_cast<double>(codes.size()));
}

TEST(Awq, AgreesWithThePaperInDoublePrecision) {
  const Reference reference;
  const Json& expected = reference.json.at("awq");
  const Method& awq = method_by_name("awq");
  Json facts;
  const std::vector<float> scales = awq.smooth(reference.request(kI4_G32), facts);
  EXPECT_DOUBLE_EQ(facts.at("smoothing_alpha"), expected.at("alpha").get<double>());
  EXPECT_EQ(facts.at("smoothing_by_weights"), expected.at("by_weights"));
  const auto wanted = expected.at("scales").get<std::vector<double>>();
  for (size_t i = 0; i < scales.size(); ++i)
    EXPECT_NEAR(scales[i], wanted[i], 1e-5 * wanted[i]) << i;
  double loss = 0;
  for (size_t layer = 0; layer < reference.weights.size(); ++layer) {
    std::vector<int> codes;
    std::vector<float> values;
    reference.round(awq, kI4_G32, scales, layer, codes, values);
    expect_equal_codes(codes, expected.at("codes").at(layer));
    loss += reference.loss(layer, values);
  }
  const double best = expected.at("loss"), plain = expected.at("plain_loss"),
               scaled = expected.at("scaled_loss");
  EXPECT_NEAR(loss, best, 1e-3 * best);
  EXPECT_LT(scaled, 0.9 * plain);
  EXPECT_LT(best, scaled) << "clipping helps";
  EXPECT_NEAR(facts.at("smoothing_gain").get<double>(), 1 - scaled / plain, 1e-3);
}

TEST(SmoothQuant, AgreesWithThePaperInDoublePrecision) {
  const Reference reference;
  const Json& expected = reference.json.at("smoothquant");
  const Method& smoothquant = method_by_name("smoothquant");
  Json facts;
  const std::vector<float> scales = smoothquant.smooth(reference.request(kI8A8_Row), facts);
  const auto wanted = expected.at("scales").get<std::vector<double>>();
  for (size_t i = 0; i < scales.size(); ++i)
    EXPECT_NEAR(scales[i], wanted[i], 1e-5 * wanted[i]) << i;
  for (size_t layer = 0; layer < reference.weights.size(); ++layer) {
    std::vector<int> codes;
    std::vector<float> values;
    reference.round(smoothquant, kI8A8_Row, scales, layer, codes, values);
    expect_equal_codes(codes, expected.at("codes").at(layer));
  }
}

std::vector<float> logits_of(const WeightSource& weights) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 24; ++i) ids.push_back(i * 7 % 250 + 2);
  const auto decoder = Decoder::create(weights, Activations::kF32);
  std::vector<float> logits(ids.size() * static_cast<size_t>(weights.arch().vocab));
  decoder->forward(*decoder->new_cache(32), ids, logits.data(), false);
  return logits;
}

TEST(Smoothing, LeavesWhatTheModelComputes) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 128});
  const auto model = Model::open(folder.file("model"));
  const CalibrationData data =
      load_calibration({.calibration = {folder.write("calibration.txt", random_text(2000))},
                        .calibration_context = 64},
                       *model);
  std::vector<OutputTensor> targets;
  for (const TensorInfo& info : model->tensors()) {
    const bool matrix = info.shape.size() == 2 && info.name.starts_with("blk.");
    targets.push_back({info.name, matrix ? DType::kQ4_0 : DType::kF32, info.shape});
  }
  const std::vector<float> before = logits_of(*model);
  for (const std::string& name : smoother_names()) {
    SCOPED_TRACE(name);
    const Method& method = method_by_name(name);
    ScaledWeights weights(*model);
    Context context;
    const auto facts = smooth_model(
        {.model = model.get(), .targets = &targets, .smoother = &method, .data = &data}, weights,
        context);
    EXPECT_FALSE(weights.empty());
    EXPECT_TRUE(facts.count("blk.0.attn_q.weight"));
    EXPECT_EQ(facts.count("blk.0.ffn_down.weight"), method.smooths_linear ? 1u : 0u);
    const std::vector<float> after = logits_of(weights);
    float largest = 0, difference = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      largest = std::max(largest, std::fabs(before[i]));
      difference = std::max(difference, std::fabs(before[i] - after[i]));
    }
    EXPECT_LE(difference, 1e-4f * largest);  // Products of rounded factors.
    // The norm really is another one.
    std::vector<float> norm(64), scaled(64);
    model->read_rows("blk.0.attn_norm.weight", 0, 1, norm.data());
    weights.read_rows("blk.0.attn_norm.weight", 0, 1, scaled.data());
    if (method.name == "smoothquant") {
      EXPECT_NE(norm, scaled);
    }
  }
}

TEST(Smoothing, ComposesWithOtherMethodsAndSaysSo) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 128});
  for (const std::string scheme : {"q4_0", "w4a16"}) {
    for (const std::string method : {"nearest", "imatrix", "gptq"}) {
      SCOPED_TRACE(scheme + " by " + method);
      QuantizeStage stage = quantize_stage(
          folder.file("model"), folder.file(scheme == "q4_0" ? "out.gguf" : "out"), scheme);
      if (scheme == "w4a16") stage.options.group_size = 32;
      stage.options.method = method;
      stage.options.smooth = "awq";
      stage.options.calibration = {folder.write("calibration.txt", random_text(2000))};
      stage.options.calibration_context = 64;
      const Report report = quantize(stage, {.force = true});
      EXPECT_EQ(report.at("method").at("smooth"), "awq");
      for (const Json& row : report.at("tensors")) {
        if (row.at("tensor") != "blk.0.ffn_up.weight") continue;
        EXPECT_EQ(row.at("smoothing"), "awq") << row;
        EXPECT_TRUE(row.contains("smoothing_alpha")) << row;
      }
    }
  }
}

TEST(Smoothing, RefusesWhatItCannotDo) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 128});
  const auto refused = [&](const auto& change) {
    QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out.gguf"), "q4_0");
    change(stage.options);
    return failure_of([&] { stage.plan({}); }).second;
  };
  EXPECT_TRUE(contains(refused([](auto& o) { o.method = "awq"; }), "awq needs calibration text"));
  EXPECT_TRUE(contains(refused([](auto& o) { o.smooth = "gptq"; }), "expected one of awq"));
  EXPECT_TRUE(contains(refused([](auto& o) { o.smooth_alpha = 0.3; }), "belongs to smoothquant"));
}

}  // namespace
}  // namespace slmc::test
