// Targets: that the file is within them, that the choice is repeatable and can be stored, and what
// is refused.
#include "quantize/budget.h"

#include <filesystem>

#include "compress/runtime/packed_matrix.h"
#include "quantize/divergence.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

namespace fs = std::filesystem;

class Budget : public testing::Test {
 protected:
  Budget() {
    write_tiny_model(model_, {.hidden = 64, .ffn = 96, .dtype = DType::kBF16});
    spit(text_, random_text(6000));
  }
  QuantizeStage stage(const std::string& output, const std::string& method = "nearest") const {
    QuantizeStage quantizer = quantize_stage(model_, folder_.file(output), "");
    quantizer.options.method = method;
    quantizer.options.calibration = {text_};
    quantizer.options.calibration_context = 64;
    quantizer.options.target_tokens = 256;
    return quantizer;
  }
  static Plan decided(QuantizeStage& stage, Context context = {}) {
    return stage.refine(stage.plan({}), context);
  }
  static Report run(QuantizeStage& stage, Context context = {}) {
    return stage.run(decided(stage, context), context);
  }
  uint64_t smallest() {
    QuantizeStage quantizer = stage("none.gguf");
    quantizer.options.target_size = "1";
    const auto [code, message] = failure_of([&] { quantizer.plan({}); });
    EXPECT_EQ(code, ExitCode::kUsage);
    const size_t at = message.find("has ");
    EXPECT_NE(at, std::string::npos) << message;
    return std::stoull(message.substr(at + 4));
  }
  TemporaryFolder folder_;
  std::string model_ = folder_.file("model"), text_ = folder_.file("text.txt");
};

TEST_F(Budget, TheFileIsWithinTheTargetAndUsesIt) {
  const uint64_t least = smallest();
  double last = 1e9;
  for (const double share : {1.0, 1.2, 1.6}) {
    const auto target = static_cast<uint64_t>(share * static_cast<double>(least));
    QuantizeStage quantizer = stage("size.gguf");
    quantizer.options.target_size = std::to_string(target);
    const Report report = run(quantizer, {.force = true});
    const uint64_t size = fs::file_size(folder_.file("size.gguf"));
    EXPECT_LE(size, target);
    EXPECT_GE(static_cast<double>(size), 0.97 * static_cast<double>(target));
    EXPECT_EQ(report.at("size_bytes"), size);
    const Json& budget = report.at("budget");
    const double predicted = budget.at("predicted_kld"), measured = budget.at("measured_kld");
    EXPECT_LT(measured, last);
    EXPECT_GT(measured, 0.5 * predicted);
    EXPECT_LT(measured, 2 * predicted);
    EXPECT_GT(budget.at("curve").size(), 5u);
    EXPECT_FALSE(fs::exists(folder_.file("size.gguf.partial.sensitivity")));
    last = measured;
  }
}

TEST_F(Budget, LosesLessThanAMixOfTheSameSize) {
  for (const std::string method : {"nearest", "imatrix", "gptq"}) {
    QuantizeStage mix = quantize_stage(model_, folder_.file(method + "-mix.gguf"), "q4_0");
    set_method(mix, method_by_name(method), folder_);
    mix.options.calibration = {text_};
    mix.options.calibration_context = 64;
    if (method == "nearest") mix.options.calibration.clear();
    quantize(mix);
    QuantizeStage quantizer = stage(method + ".gguf", method);
    quantizer.options.scheme = "q4_0";
    quantizer.options.target_size = std::to_string(fs::file_size(mix.options.output));
    const Report report = run(quantizer);
    const std::shared_ptr<const Model> model = Model::open(model_);
    const CalibrationData data = load_calibration(quantizer.options, *model);
    Context context;
    const double other = measured_divergence(*model, mix.options.output, data, 256, context);
    EXPECT_LT(report.at("budget").at("measured_kld").get<double>(), other) << method;
    const Json& compared = report.at("budget").at("scheme");
    EXPECT_EQ(compared.at("name"), "q4_0");
    EXPECT_GT(compared.at("predicted_kld").get<double>(),
              report.at("budget").at("predicted_kld").get<double>());
  }
}

TEST_F(Budget, SingleTensorsAreMeasuredOnAQuarterOfTheTokens) {
  QuantizeStage quantizer = stage("quarter.gguf");
  quantizer.options.target_bpw = 5;
  const auto figure = [](const Plan& plan, const char* name) {
    return plan.details.at("budget").at(name).get<double>();
  };
  EXPECT_EQ(figure(decided(quantizer), "singles_measured_on_tokens"), 64);
  const Plan small = quantizer.plan({});
  quantizer.options.target_tokens = 2048;
  const Plan more = quantizer.plan({});
  EXPECT_GT(figure(more, "measuring_seconds"), 3 * figure(small, "measuring_seconds"));
  EXPECT_EQ(figure(more, "measuring_peak_bytes"), figure(small, "measuring_peak_bytes"));
  quantizer.options.calibration_context = 128;  // A window at least.
  quantizer.options.target_tokens = 16;
  const Plan wide = quantizer.plan({});
  EXPECT_GT(figure(wide, "measuring_peak_bytes"), figure(small, "measuring_peak_bytes"));
  EXPECT_EQ(figure(decided(quantizer), "singles_measured_on_tokens"), 128);
}

TEST_F(Budget, EveryTargetHolds) {
  QuantizeStage bits = stage("bits.gguf");
  bits.options.target_bpw = 5.5;
  const double found = run(bits).at("bits_per_weight");
  EXPECT_LE(found, 5.5);
  EXPECT_GT(found, 5.3);

  for (const std::string method : {"nearest", "gptq"}) {
    QuantizeStage loss = stage(method + "-loss.gguf", method);
    loss.options.target_kld = 0.002;
    const Report report = run(loss);
    const double measured = report.at("budget").at("measured_kld");
    EXPECT_LE(measured, 0.002) << method;
    EXPECT_GT(measured, 0.0012) << method;
    EXPECT_GE(report.at("budget").at("trials").size(), 1u);
    EXPECT_FALSE(fs::exists(folder_.file(method + "-loss.gguf.trial.gguf")));
  }

  QuantizeStage speed = stage("speed.gguf");
  speed.options.target_speed = 1.5;
  run(speed);
  const std::shared_ptr<const Model> written = Model::open(folder_.file("speed.gguf"));
  uint64_t reads = 0, reference = 0;
  for (const TensorInfo& info : written->tensors()) {
    if (info.shape.size() < 2) continue;
    reads += packed_bytes(info.dtype, info.shape[0], info.shape[1], info.name);
    reference += packed_bytes(DType::kQ8_0, info.shape[0], info.shape[1], info.name);
  }
  EXPECT_LE(1.5 * static_cast<double>(reads), static_cast<double>(reference));
  EXPECT_GE(1.55 * static_cast<double>(reads), static_cast<double>(reference));
}

/// The plan but for what is about this machine and the moment.
Json without_machine(Plan plan) {
  plan.predicted_seconds = 0;
  plan.predicted_peak_bytes = 0;
  plan.least_peak_bytes = 0;
  plan.details["budget"].erase("measuring_seconds");
  return plan_to_json(plan);
}

TEST_F(Budget, PlanAndBytesDoNotDependOnThreads) {
  const int before = threads();
  for (const std::string method : {"nearest", "gptq"}) {
    Json plan;
    std::string bytes;
    for (const int count : {1, 2, 7}) {
      set_threads(count);
      QuantizeStage quantizer = stage("threads.gguf", method);
      quantizer.options.target_bpw = 5;
      Context context{.force = true};
      const Plan chosen = decided(quantizer, context);
      quantizer.run(chosen, context);
      if (bytes.empty())
        plan = without_machine(chosen), bytes = slurp(folder_.file("threads.gguf"));
      EXPECT_EQ(without_machine(chosen), plan) << count;
      EXPECT_EQ(slurp(folder_.file("threads.gguf")), bytes) << count;
    }
  }
  set_threads(before);
}

TEST_F(Budget, RowsAreOpenUntilRefinedAndAPlanCanBeStored) {
  QuantizeStage quantizer = stage("stored.gguf");
  quantizer.options.target_bpw = 6;
  quantizer.options.rule = {"ffn_down=q8_0"};
  const Plan open = quantizer.plan({});
  EXPECT_TRUE(contains(row_of(open, "blk.0.attn_q.weight").to, "one of {"));
  EXPECT_TRUE(contains(row_of(open, "blk.0.attn_q.weight").to, "by measurement"));
  EXPECT_EQ(row_of(open, "blk.0.ffn_down.weight").to, "q8_0");
  Context context;
  const auto [code, message] = failure_of([&] { quantizer.run(open, context); });
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_TRUE(contains(message, "--dry-run=measured")) << message;

  Context dry{.dry_run = "measured"};
  const Plan plan = decided(quantizer, dry);
  EXPECT_FALSE(fs::exists(folder_.file("stored.gguf.partial.sensitivity")));
  EXPECT_EQ(row_of(plan, "blk.0.ffn_down.weight").to, "q8_0");
  quantizer.run(plan_from_json(plan_to_json(plan), "plan"), context);
  EXPECT_EQ(fs::file_size(folder_.file("stored.gguf")), plan.output_bytes);
  const std::string bytes = slurp(folder_.file("stored.gguf"));
  fs::remove(folder_.file("stored.gguf"));
  run(quantizer);
  EXPECT_EQ(slurp(folder_.file("stored.gguf")), bytes);
}

TEST_F(Budget, MeasuringGoesOnAfterAKill) {
  QuantizeStage quantizer = stage("out.gguf", "gptq");
  quantizer.options.target_bpw = 5;
  const Plan expected = decided(quantizer);
  const std::string path = folder_.file("out.gguf.partial.sensitivity");
  ASSERT_TRUE(fs::exists(path)) << "kept until the file is written";
  const std::string journal = slurp(path);
  Random random(9);
  for (int point = 0; point < 10; ++point) {
    spit(path, journal.substr(0, random.below(journal.size())));
    EXPECT_EQ(without_machine(decided(quantizer, {.resume = true})), without_machine(expected));
    EXPECT_EQ(slurp(path), journal) << point;
  }
  // What the journal holds is used, not measured again.
  std::string forged = journal;
  const size_t at = forged.find("\"divergences\":[");
  forged.insert(at + 15, "9");
  spit(path, forged);
  EXPECT_NE(without_machine(decided(quantizer, {.resume = true})), without_machine(expected));
  // Of other text it is not.
  spit(text_, random_text(6000, 4));
  spit(path, journal);
  decided(quantizer, {.resume = true});
  EXPECT_NE(slurp(path), journal);
}

TEST_F(Budget, RefusesWhatCannotBeMeant) {
  const auto refused = [&](const auto& change, ExitCode expected, const std::string& part) {
    QuantizeStage quantizer = stage("never.gguf");
    change(quantizer.options);
    const auto [code, message] = failure_of([&] { run(quantizer); });
    EXPECT_EQ(code, expected) << message;
    EXPECT_TRUE(contains(message, part)) << message;
  };
  refused([](auto& o) { o.target_size = "1KB"; }, ExitCode::kUsage, "smallest possible");
  refused([](auto& o) { o.target_bpw = 1; }, ExitCode::kUsage, "smallest possible is");
  refused([](auto& o) { o.target_speed = 50; }, ExitCode::kUsage, "fastest possible is");
  refused([](auto& o) { o.target_kld = 1e-9, o.target_types = {"q4_0"}; }, ExitCode::kUsage,
          "least possible");
  refused([](auto& o) { o.target_bpw = 5, o.target_kld = 0.1; }, ExitCode::kUsage, "one of them");
  refused([](auto& o) { o.target_bpw = 5, o.calibration.clear(); }, ExitCode::kUsage,
          "--calibration");
  refused([](auto& o) { o.target_bpw = 5, o.target_types = {"q4_kk"}; }, ExitCode::kUsage, "q4_k");
  refused([&](auto& o) { o.target_bpw = 5, o.output = folder_.file("folder"); },
          ExitCode::kUnsupported, ".gguf");
  refused([](auto&) {}, ExitCode::kUsage, "--target-size");
  refused([](auto& o) { o.scheme = "q4_0", o.method = "imatrix", o.target_measured = 2; },
          ExitCode::kUsage, "belongs to a target");
}

// Measuring may take hours, so what would stop the writing is found before.
TEST_F(Budget, AnOutputThatExistsIsFoundBeforeMeasuring) {
  QuantizeStage quantizer = stage("out.gguf");
  quantizer.options.target_bpw = 5;
  spit(folder_.file("out.gguf"), "mine");
  const auto [code, message] = failure_of([&] { decided(quantizer); });
  EXPECT_EQ(code, ExitCode::kUsage) << message;
  EXPECT_FALSE(fs::exists(folder_.file("out.gguf.partial.sensitivity")));
  decided(quantizer, {.dry_run = "measured"});  // Writes nothing.
}

TEST_F(Budget, ADryRunLeavesAKilledRunsMeasurements) {
  QuantizeStage quantizer = stage("out.gguf");
  quantizer.options.target_bpw = 5;
  decided(quantizer);
  const std::string path = folder_.file("out.gguf.partial.sensitivity"), kept = slurp(path);
  const std::string conditions = slurp(folder_.file("out.gguf.partial.conditions"));
  decided(quantizer, {.dry_run = "measured"});
  ASSERT_TRUE(fs::exists(path));
  EXPECT_EQ(slurp(path), kept);
  EXPECT_EQ(slurp(folder_.file("out.gguf.partial.conditions")), conditions);
}

// The prediction's premise: what single tensors cost adds up, and one measured type tells of the
// others.
TEST_F(Budget, SingleDivergencesAddUp) {
  QuantizeStage one = stage("one.gguf"), all = stage("all.gguf");
  one.options.target_bpw = all.options.target_bpw = 5;
  all.options.target_measured = 16;
  const Plan by_one = decided(one), by_all = decided(all);
  const Json &few = by_one.details.at("budget").at("tensors"),
             &many = by_all.details.at("budget").at("tensors");
  ASSERT_EQ(few.size(), many.size());
  for (size_t i = 0; i < few.size(); ++i) {
    for (const auto& [type, kld] : many[i].at("kld").items()) {
      if (kld.get<double>() < 1e-7) continue;  // The source's own type, and noise.
      const double ratio = few[i].at("kld").at(type).get<double>() / kld.get<double>();
      EXPECT_GT(ratio, 0.4) << few[i].at("tensors") << type;
      EXPECT_LT(ratio, 2.5) << few[i].at("tensors") << type;
    }
  }
}

}  // namespace
}  // namespace slmc::test
