// What the quantize stage refuses, and that nothing is left when it does.
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

namespace fs = std::filesystem;

size_t files_in(const std::string& folder) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(folder))
    count += entry.path().filename() != "model";
  return count;
}

/// Overwrites one element of a tensor of a single-file f32 checkpoint.
void poke(const std::string& folder, const std::string& tensor, uint64_t element, float value) {
  std::string bytes = slurp(folder + "/model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  const Json json = Json::parse(bytes.substr(8, header));
  const uint64_t offset =
      8 + header + json.at(tensor).at("data_offsets")[0].get<uint64_t>() + 4 * element;
  std::memcpy(bytes.data() + offset, &value, 4);
  spit(folder + "/model.safetensors", bytes);
}

class QuantizeErrors : public testing::Test {
 protected:
  QuantizeErrors() { write_tiny_model(model_, {}); }
  QuantizeStage stage(const std::string& scheme = "q8_0", const std::string& output = "out.gguf") {
    return quantize_stage(model_, folder_.file(output), scheme);
  }
  TemporaryFolder folder_;
  std::string model_ = folder_.file("model");
};

TEST_F(QuantizeErrors, NameTheTensorAndElementThatIsNotFinite) {
  poke(model_, "model.layers.1.mlp.up_proj.weight", 64 * 5 + 7, NAN);
  QuantizeStage quantizer = stage();
  const auto [code, message] = failure_of([&] { quantize(quantizer); });
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_TRUE(contains(message, "blk.1.ffn_up.weight[5, 7] is nan")) << message;
  EXPECT_EQ(files_in(folder_.path()), 0u);
}

TEST_F(QuantizeErrors, RefuseValuesBeyondTheScaleOfTheType) {
  poke(model_, "model.layers.0.mlp.up_proj.weight", 64 * 3 + 2, 1e20f);
  for (const std::string scheme : {"q8_0", "q4_0", "f16"}) {
    QuantizeStage quantizer = stage(scheme);
    const auto [code, message] = failure_of([&] { quantize(quantizer); });
    EXPECT_EQ(code, ExitCode::kUnsupported);
    EXPECT_TRUE(contains(message, "blk.0.ffn_up.weight[3, 2]") ||
                contains(message, "blk.0.ffn_up.weight[3, 0]"))
        << message;
    EXPECT_TRUE(contains(message, "65504")) << message;
  }
  EXPECT_EQ(files_in(folder_.path()), 0u);
  QuantizeStage exact = stage("bf16");  // Holds it; the sums of squares overflow f32, not double.
  exact.options.check = "bytes";
  const Report report = quantize(exact);
  for (const Json& tensor : report.at("tensors")) {
    if (tensor.at("tensor") == "blk.0.ffn_up.weight") {
      EXPECT_LT(tensor.at("relative_error").get<double>(), 1.0 / 256);
    }
  }
}

TEST_F(QuantizeErrors, RulesThatCannotHold) {
  const auto with_rule = [&](const std::string& rule) {
    QuantizeStage quantizer = stage();
    quantizer.options.rule = {rule};
    return failure_of([&] { quantizer.plan({}); });
  };
  write_tiny_model(folder_.file("narrow"), {.hidden = 80});
  QuantizeStage narrow = quantize_stage(folder_.file("narrow"), folder_.file("out.gguf"), "q8_0");
  narrow.options.rule = {"ffn_up=q4_0"};
  auto [code, message] = failure_of([&] { narrow.plan({}); });
  EXPECT_EQ(code, ExitCode::kUnsupported);
  EXPECT_TRUE(contains(message, "ffn_up") && contains(message, "80") && contains(message, "32"))
      << message;

  std::tie(code, message) = with_rule("ffn_downn=q4_0");
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_TRUE(contains(message, "blk.0.ffn_down.weight")) << message;
  std::tie(code, message) = with_rule("attn_norm=q8_0");
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_TRUE(contains(message, "vectors")) << message;
  std::tie(code, message) = with_rule("ffn_down=q9_0");
  EXPECT_EQ(code, ExitCode::kUsage);
  std::tie(code, message) = with_rule("ffn_down=i8");
  EXPECT_EQ(code, ExitCode::kUnsupported);
  std::tie(code, message) = with_rule("ffn_(=q8_0");
  EXPECT_EQ(code, ExitCode::kUsage);
  std::tie(code, message) = with_rule("q8_0");
  EXPECT_EQ(code, ExitCode::kUsage);
}

TEST_F(QuantizeErrors, BlockTypesNeedGguf) {
  QuantizeStage quantizer = stage("q4_0", "folder");
  const auto [code, message] = failure_of([&] { quantizer.plan({}); });
  EXPECT_EQ(code, ExitCode::kUnsupported);
  EXPECT_TRUE(contains(message, ".gguf")) << message;
}

TEST_F(QuantizeErrors, QuantizedSourcesNeedDequantize) {
  QuantizeStage first = stage("q8_0", "first.gguf");
  quantize(first);
  QuantizeStage second =
      quantize_stage(folder_.file("first.gguf"), folder_.file("second.gguf"), "q4_0");
  const auto [code, message] = failure_of([&] { second.plan({}); });
  EXPECT_EQ(code, ExitCode::kUnsupported);
  EXPECT_TRUE(contains(message, "--dequantize")) << message;
  second.options.dequantize = true;
  const Plan plan = second.plan({});
  EXPECT_TRUE(contains(row_of(plan, "blk.0.ffn_up.weight").reason, "already rounded"));
  Context context;
  EXPECT_EQ(second.run(plan, context).at("options").at("dequantize"), true);
}

TEST_F(QuantizeErrors, MemoryThatCannotBeKeptIsRefusedBeforeWork) {
  QuantizeStage quantizer = stage();
  const auto [code, message] = failure_of([&] { quantize(quantizer, {.max_ram = 1 << 20}); });
  EXPECT_EQ(code, ExitCode::kResources);
  EXPECT_TRUE(contains(message, "--max-ram")) << message;
  EXPECT_EQ(files_in(folder_.path()), 0u);
}

TEST_F(QuantizeErrors, AnExistingOutputIsKeptWithoutForce) {
  spit(folder_.file("out.gguf"), "mine");
  QuantizeStage quantizer = stage();
  EXPECT_EQ(failure_of([&] { quantize(quantizer); }).first, ExitCode::kUsage);
  EXPECT_EQ(slurp(folder_.file("out.gguf")), "mine");
  quantize(quantizer, {.force = true});
  EXPECT_NE(slurp(folder_.file("out.gguf")), "mine");
}

TEST_F(QuantizeErrors, APlanOfAnotherModelIsRefused) {
  const Plan plan = stage().plan({});
  write_tiny_model(folder_.file("other"), {.layers = 3});
  Plan moved = plan;
  moved.details["model"] = folder_.file("other");
  QuantizeStage quantizer = stage();
  Context context;
  EXPECT_EQ(failure_of([&] { quantizer.run(moved, context); }).first, ExitCode::kBadInput);
  moved = plan;
  for (PlanRow& row : moved.rows) row.to = "q8_0";  // Norms too, which no reader takes.
  EXPECT_EQ(failure_of([&] { quantizer.run(moved, context); }).first, ExitCode::kBadInput);
}

TEST_F(QuantizeErrors, RulesWinOverTheSchemeInOrder) {
  QuantizeStage quantizer = stage("q4_0");
  quantizer.options.rule = {"ffn_down=q8_0", "blk\\.1\\.=f16"};
  const Plan plan = plan_from_json(plan_to_json(quantizer.plan({})), "stored");
  EXPECT_EQ(row_of(plan, "blk.0.ffn_down.weight").to, "q8_0");
  EXPECT_EQ(row_of(plan, "blk.1.ffn_down.weight").to, "q8_0");
  EXPECT_EQ(row_of(plan, "blk.1.ffn_up.weight").to, "f16");
  EXPECT_EQ(row_of(plan, "blk.1.attn_norm.weight").to, "f32");
  Context context;
  const Report report = quantizer.run(plan, context);
  EXPECT_EQ(Model::open(folder_.file("out.gguf"))->info("blk.1.ffn_up.weight").dtype, DType::kF16);
  EXPECT_EQ(report.at("types").size(), 4u);
}

TEST_F(QuantizeErrors, TheErrorsReportedAreThoseOfTheFile) {
  QuantizeStage quantizer = stage("q4_0");
  const Report report = quantize(quantizer);
  const auto source = Model::open(model_), written = Model::open(folder_.file("out.gguf"));
  for (const Json& tensor : report.at("tensors")) {
    const std::string name = tensor.at("tensor");
    const int64_t n = element_count(source->info(name).shape),
                  rows = n / source->info(name).shape.back();
    std::vector<float> a(static_cast<size_t>(n)), b(a.size());
    source->read_rows(name, 0, rows, a.data());
    written->read_rows(name, 0, rows, b.data());
    double error = 0, weight = 0, largest = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
      error += difference * difference;
      weight += static_cast<double>(a[i]) * static_cast<double>(a[i]);
      largest = std::max(largest, std::fabs(difference));
    }
    EXPECT_NEAR(tensor.at("rmse").get<double>(), std::sqrt(error / static_cast<double>(n)),
                1e-5 * std::sqrt(error / static_cast<double>(n)));
    EXPECT_NEAR(tensor.at("relative_error").get<double>(), std::sqrt(error / weight), 1e-5);
    EXPECT_NEAR(tensor.at("max_error").get<double>(), largest, 1e-6 * largest);
  }
}

TEST_F(QuantizeErrors, AModelfileIsWrittenBesideTheGguf) {
  QuantizeStage quantizer = stage("q8_0");
  quantizer.options.modelfile = true;
  const Report report = quantize(quantizer);
  EXPECT_TRUE(contains(slurp(folder_.file("Modelfile")), "FROM ./out.gguf"));
  EXPECT_EQ(report.at("modelfile"), folder_.file("Modelfile"));
}

}  // namespace
}  // namespace slmc::test
