// Histograms of magnitudes, and what each observer makes of distributions whose answer is known.
#include <cmath>

#include "compress/core/random.h"
#include "compress/runtime/decoder.h"
#include "formats/group_types.h"
#include "quantize/observer.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

TEST(InputHistogram, DoesNotDependOnOrderOrCuts) {
  Random random(3);
  std::vector<float> x;
  for (int i = 0; i < 5000; ++i)
    x.push_back(static_cast<float>(random.normal()) * (i % 500 == 0 ? 100.0f : 1.0f));
  InputHistogram whole, pieces, left, right;
  whole.add(x.data(), 5000);
  for (int i = 4999; i >= 0; --i) pieces.add(&x[static_cast<size_t>(i)], 1);
  left.add(x.data(), 400);
  right.add(x.data() + 400, 4600);
  left.add(right);
  for (const InputHistogram* other : {&pieces, &left}) {
    EXPECT_EQ(whole.bins(), other->bins());
    EXPECT_EQ(whole.width(), other->width());
    EXPECT_EQ(whole.peak(), other->peak());
    EXPECT_EQ(whole.count(), other->count());
  }
  uint64_t sum = 0;
  for (const uint64_t bin : whole.bins()) sum += bin;
  EXPECT_EQ(sum, 5000u);
  EXPECT_GE(whole.width() * InputHistogram::kBins, static_cast<double>(whole.peak()));
  EXPECT_LE(whole.width() * InputHistogram::kBins, 2.01 * static_cast<double>(whole.peak()));
}

/// 100,000 values spread evenly over [-1, 1], and `outliers` of magnitude 50.
InputHistogram uniform(int outliers) {
  std::vector<float> x;
  for (int i = 0; i < 100000; ++i) x.push_back((static_cast<float>(i) + 0.5f) / 50000.0f - 1);
  for (int i = 0; i < outliers; ++i) x.push_back(i % 2 == 0 ? 50.0f : -50.0f);
  InputHistogram inputs;
  inputs.add(x.data(), static_cast<int64_t>(x.size()));
  return inputs;
}

double threshold(const char* name, const InputHistogram& inputs) {
  return observer_by_name(name).threshold(inputs);
}

TEST(Observers, AgreeOnInputsWithoutOutliers) {
  const InputHistogram inputs = uniform(0);
  for (const Observer* observer : observers()) {
    const double found = observer->threshold(inputs);
    EXPECT_GT(found, 0.97) << observer->name;
    EXPECT_LE(found, static_cast<double>(inputs.peak())) << observer->name;
  }
}

TEST(Observers, DifferWhereThereAreOutliers) {
  const InputHistogram inputs = uniform(3);  // 3 in 100,003: fewer than 0.01%.
  EXPECT_EQ(threshold("minmax", inputs), 50);
  EXPECT_NEAR(threshold("percentile", inputs), 1.0, 0.03);
  // Cutting three values at t costs 3 (50 - t)^2, rounding 100,000 costs about (t / 127.5)^2 / 12
  // each: least at t = 42.7.
  EXPECT_NEAR(threshold("mse", inputs), 42.7, 5);
  // A bell of width 0.3 loses its shape when it is rounded in steps of 50 / 128.
  Random random(5);
  std::vector<float> x = {50, -50, 50};
  for (int i = 0; i < 100000; ++i) x.push_back(0.3f * static_cast<float>(random.normal()));
  InputHistogram bell;
  bell.add(x.data(), static_cast<int64_t>(x.size()));
  EXPECT_LT(threshold("entropy", bell), 10);
}

TEST(Observers, NameTheLayerWhoseInputsAreAllZero) {
  InputHistogram inputs;
  const float zeros[4] = {};
  inputs.add(zeros, 4);
  const auto [code, message] =
      failure_of([&] { observed_scale(observer_by_name("mse"), inputs, "blk.3.ffn_down.weight"); });
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_TRUE(contains(message, "blk.3.ffn_down.weight"));
}

TEST(Observers, FixTheScalesOfW8a8) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 128, .dtype = DType::kBF16});
  for (const std::string& name : observer_names()) {
    for (const std::string method : {"nearest", "gptq", "smoothquant"}) {
      SCOPED_TRACE(name + " " + method);
      QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), "w8a8");
      stage.options.method = method;
      stage.options.observer = name;
      stage.options.calibration = {folder.write("calibration.txt", random_text(2000))};
      stage.options.calibration_context = 64;
      const Report report = quantize(stage, {.force = true});
      const auto written = Model::open(folder.file("out"));
      int64_t fixed = 0;
      for (const Json& row : report.at("tensors")) {
        if (row.at("to") != "i8s8_row") continue;
        ++fixed;
        EXPECT_FLOAT_EQ(input_scale(written->view(row.at("tensor"))),
                        row.at("input_scale").get<float>());
      }
      EXPECT_EQ(fixed, 7 * written->arch().layers);
      const Json inputs = written->config().value("quantization_config", Json());
      EXPECT_FALSE(inputs.is_null());
    }
  }
  QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), "w8a8");
  stage.options.observer = "mse";
  EXPECT_TRUE(contains(failure_of([&] { stage.plan({}); }).second, "needs calibration text"));
  stage.options.scheme = "w8a16";
  stage.options.calibration = {folder.file("calibration.txt")};
  EXPECT_TRUE(contains(failure_of([&] { stage.plan({}); }).second, "belongs to w8a8"));
}

}  // namespace
}  // namespace slmc::test
