// Calibration through LibTorch's operators, which are the same on every device, against the
// runtime's: every family's statistics, GPTQ's codes, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "quantize/block_runner.h"
#include "quantize/imatrix_stage.h"
#include "tests/quantize/quantize_support.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_step.h"
#include "tests/support/run_program.h"
#include "tests/support/tiny_model.h"

namespace slmc::testing {
namespace {

namespace fs = std::filesystem;

CalibrationForward through_torch(const std::string& device = "cpu",
                                 const std::string& dtype = "f32") {
  return {.backend = "torch", .device = device, .dtype = dtype, .module = &test::torch_for_gpus()};
}

/// Windows of 40, 40 and 23 ids.
CalibrationData windows_for(const WeightSource& model, const CalibrationForward& forward) {
  const std::vector<int32_t> ids = golden_prompt(103, model.arch().vocab);
  CalibrationData data;
  data.windows = {{ids.begin(), ids.begin() + 40},
                  {ids.begin() + 40, ids.begin() + 80},
                  {ids.begin() + 80, ids.end()}};
  data.context = 40;
  data.tokens = 103;
  data.forward = forward;
  return data;
}

/// What calibration finds out about a model: for each group its statistics, and beside a model with
/// one matrix halved the cross products too.
struct Found {
  std::string name;
  LinearStatistics statistics;
  std::vector<float> cross, stream;
};

std::vector<Found> calibrate(const WeightSource& model, const CalibrationForward& forward) {
  const CalibrationData data = windows_for(model, forward);
  const Architecture& arch = model.arch();
  const auto runner = BlockRunner::create(model, data, "");
  std::vector<Found> found;
  // Another model: the first block's output projection is missing.
  ReplacedWeights changed(model);
  TensorView none = model.view("blk.0.attn_output.weight");
  none.dtype = DType::kF32;
  const auto zeros = std::make_shared<std::vector<std::byte>>(none.bytes());
  none.data = zeros->data();
  none.owner = zeros;
  changed.replace("blk.0.attn_output.weight", none);
  runner->embed(changed);
  runner->embed_original(model);
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    for (const auto& [branch, groups] : runner->groups(changed, layer)) {
      for (const std::vector<std::string>& group : groups) {
        const int64_t width = model.view(group.front()).columns();
        const bool behind = group.front().ends_with("ffn_down.weight");
        InputStatistics alone(group.front(), width, true), beside(group.front(), width, false),
            stream(group.front(), width, false);
        runner->observe_group(changed, layer, branch, group, alone);
        // In the first block its last groups take the original along, then run_original does.
        const bool moves = layer == 0 && &group == &groups.back();
        runner->observe_beside(
            model, changed, layer, branch, group,
            {.inputs = !behind, .stream = &stream, .behind = behind, .moves = moves}, beside);
        std::vector<float> cross = behind ? std::vector<float>() : beside.finish_cross();
        found.push_back(
            {join(group, " "), std::move(alone).finish(), std::move(cross), stream.finish_cross()});
        const LinearStatistics again = std::move(beside).finish();
        EXPECT_EQ(again.input_squares, found.back().statistics.input_squares) << group.front();
      }
      runner->run_block(changed, layer, branch);
      if (layer > 0) runner->run_original(model, layer, branch);
    }
  }
  const std::string head = arch.tied ? "token_embd.weight" : "output.weight";
  InputStatistics last(head, arch.hidden, true);
  runner->observe_head(changed, last);
  found.push_back({head, std::move(last).finish(), {}, {}});
  return found;
}

/// The largest difference over the largest value.
double apart(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, size = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    const double off = std::fabs(double{a[i]} - double{b[i]});
    if (!(off <= difference)) difference = off;
    size = std::max(size, std::fabs(double{a[i]}));
  }
  return difference / size;
}

void expect_alike(const std::vector<Found>& expected, const std::vector<Found>& found,
                  double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const Found &a = expected[i], &b = found[i];
    ASSERT_EQ(b.name, a.name);
    EXPECT_EQ(b.statistics.tokens, a.statistics.tokens) << a.name;
    EXPECT_LE(apart(a.statistics.input_squares, b.statistics.input_squares), tolerance) << a.name;
    EXPECT_LE(apart(a.statistics.input_means, b.statistics.input_means), tolerance) << a.name;
    EXPECT_LE(apart(a.statistics.input_magnitudes, b.statistics.input_magnitudes), tolerance);
    EXPECT_LE(apart(a.statistics.input_peaks, b.statistics.input_peaks), tolerance) << a.name;
    EXPECT_LE(apart(a.statistics.hessian, b.statistics.hessian), tolerance) << a.name;
    EXPECT_LE(apart(a.cross, b.cross), tolerance) << a.name;
    EXPECT_LE(apart(a.stream, b.stream), tolerance) << a.name;
  }
}

/// Hidden states are float32 chains of some thousand terms and a few blocks, so they agree to about
/// 1e-6 and their products to a few times that; differences of two models' lose a digit more.
constexpr double kTolerance = 1e-4;

class TorchCalibration : public ::testing::TestWithParam<std::string> {};

TEST_P(TorchCalibration, GathersWhatTheRuntimeGathers) {
  const auto model = Model::open(std::string(SLMC_FIXTURES) + "/models/" + GetParam());
  const std::vector<Found> expected = calibrate(*model, {});
  expect_alike(expected, calibrate(*model, through_torch()), kTolerance);
  // bf16 keeps 8 bits, so products are off by about 1/512 and a little more in deeper blocks; the
  // first block's inputs have seen no product yet. Differences of two models are not compared.
  const std::vector<Found> rough = calibrate(*model, through_torch("cpu", "bf16"));
  EXPECT_LE(apart(expected[0].statistics.hessian, rough[0].statistics.hessian), kTolerance);
  for (size_t i = 1; i < rough.size(); ++i) {
    const double off = apart(expected[i].statistics.hessian, rough[i].statistics.hessian);
    EXPECT_LE(off, 0.1) << expected[i].name;
  }
  EXPECT_GT(apart(expected.back().statistics.hessian, rough.back().statistics.hessian), 1e-5);
}

TEST_P(TorchCalibration, RunsOnAGpuAlike) {
  const std::string missing = test::no_gpu();
  if (!missing.empty()) GTEST_SKIP() << missing;
  const auto model = Model::open(std::string(SLMC_FIXTURES) + "/models/" + GetParam());
  expect_alike(calibrate(*model, {}), calibrate(*model, through_torch("cuda")), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TorchCalibration, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

class TorchQuantize : public ::testing::Test {
 protected:
  TorchQuantize() {
    test::write_tiny_model(model_, {.hidden = 128, .ffn = 192});
    test::spit(text_, test::random_text(6000));
  }
  QuantizeStage stage(const std::string& output, const std::string& backend,
                      const std::string& scheme = "q4_0") const {
    QuantizeStage quantizer = test::quantize_stage(model_, folder_.file(output), scheme);
    quantizer.options.method = "gptq";
    quantizer.options.calibration = {text_};
    quantizer.options.calibration_context = 64;
    quantizer.options.backend = backend;
    return quantizer;
  }
  test::TemporaryFolder folder_;
  std::string model_ = folder_.file("model"), text_ = folder_.file("text.txt");
};

/// Codes of q4_0 blocks: 2 bytes of scale, 16 of codes.
std::vector<int> codes_of(const std::vector<std::byte>& blocks) {
  std::vector<int> codes;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i % 18 < 2) continue;
    codes.push_back(std::to_integer<int>(blocks[i]) & 15);
    codes.push_back(std::to_integer<int>(blocks[i]) >> 4);
  }
  return codes;
}

std::vector<int> gptq_codes(const Model& model, const std::string& name,
                            const LinearStatistics& statistics) {
  const Method& gptq = method_by_name("gptq");
  const TensorView weight = model.view(name);
  std::vector<float> values(static_cast<size_t>(weight.elements()));
  model.read_rows(name, 0, weight.rows(), values.data());
  Json facts = Json::object();
  const auto prepared = gptq.prepare(statistics, weight.columns(), {}, facts);
  const BlockCodec& codec = block_codec(DType::kQ4_0);
  std::vector<std::byte> out(dtype_row_bytes(codec.dtype, weight.columns()) *
                             static_cast<uint64_t>(weight.rows()));
  Distortion lost{};
  gptq.encode({.weight = values.data(),
               .rows = weight.rows(),
               .columns = weight.columns(),
               .grid = &codec,
               .statistics = &statistics,
               .prepared = prepared.get(),
               .kernels = &encode_kernels()},
              out.data(), &lost);
  return codes_of(out);
}

// Layer by layer behind the same weights. In a whole run a code that falls to the other side in one
// layer changes what all later layers are fitted to, so their codes part soon, whatever made it
// fall; what stays is how much is lost.
TEST_F(TorchQuantize, GivesTheRuntimesCodes) {
  const auto model = Model::open(model_);
  const std::vector<int32_t> ids = golden_prompt(2048, model->arch().vocab);
  CalibrationData data;
  for (size_t first = 0; first < ids.size(); first += 64)
    data.windows.emplace_back(ids.begin() + static_cast<int64_t>(first),
                              ids.begin() + static_cast<int64_t>(first) + 64);
  data.context = 64;
  data.tokens = 2048;
  CalibrationData theirs_data = data;
  theirs_data.forward = through_torch();
  const auto ours = BlockRunner::create(*model, data, ""),
             theirs = BlockRunner::create(*model, theirs_data, "");
  ours->embed(*model);
  theirs->embed(*model);
  int64_t codes = 0;
  for (int64_t layer = 0; layer < model->arch().layers; ++layer) {
    for (const auto& [branch, groups] : ours->groups(*model, layer)) {
      for (const std::vector<std::string>& group : groups) {
        const int64_t width = model->view(group.front()).columns();
        InputStatistics a(group.front(), width, true), b(group.front(), width, true);
        ours->observe_group(*model, layer, branch, group, a);
        theirs->observe_group(*model, layer, branch, group, b);
        const LinearStatistics x = std::move(a).finish(), y = std::move(b).finish();
        for (const std::string& name : group) {
          const std::vector<int> expected = gptq_codes(*model, name, x),
                                 found = gptq_codes(*model, name, y);
          int64_t equal = 0;
          for (size_t i = 0; i < expected.size(); ++i) equal += expected[i] == found[i] ? 1 : 0;
          codes += std::ssize(expected);
          EXPECT_GE(static_cast<double>(equal), 0.99 * static_cast<double>(std::ssize(expected)))
              << name;
        }
      }
      ours->run_block(*model, layer, branch);
      theirs->run_block(*model, layer, branch);
    }
  }
  EXPECT_GT(codes, 100000);
}

TEST_F(TorchQuantize, LosesWhatTheRuntimesFileLoses) {
  std::vector<double> lost;
  for (const std::string backend : {"runtime", "torch"}) {
    QuantizeStage quantizer = stage(backend + ".gguf", backend);
    const Report report = test::quantize(quantizer);
    const Json& forward = report.at("calibration").at("forward");
    EXPECT_EQ(forward.at("backend"), backend);
    EXPECT_EQ(forward.contains("libtorch"), backend == "torch");
    lost.push_back(0);
    for (const Json& row : report.at("tensors")) lost.back() += row.value("weighted_error", 0.0);
  }
  EXPECT_NEAR(lost[1], lost[0], 0.05 * lost[0]);
}

TEST_F(TorchQuantize, TheBytesDoNotDependOnThreads) {
  const int before = threads();
  std::string first;
  for (const int count : {1, 2, 7}) {
    set_threads(count);
    QuantizeStage quantizer = stage("threads.gguf", "torch");
    test::quantize(quantizer, {.force = true});
    const std::string bytes = test::slurp(folder_.file("threads.gguf"));
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << count;
  }
  set_threads(before);
}

// Fixed scales of inputs, keys and values, and the rounded inputs of the layers behind.
TEST_F(TorchQuantize, FindsTheRuntimesScales) {
  std::vector<Json> reports;
  for (const std::string backend : {"runtime", "torch"}) {
    QuantizeStage quantizer = stage(backend, backend, "w8a8");
    quantizer.options.smooth = "smoothquant";
    quantizer.options.observer = "minmax";
    quantizer.options.kv_type = "int8";
    reports.push_back(test::quantize(quantizer));
  }
  int inputs = 0, caches = 0;
  for (size_t i = 0; i < reports[0].at("tensors").size(); ++i) {
    const Json &a = reports[0].at("tensors")[i], &b = reports[1].at("tensors")[i];
    for (const auto& [key, count] : {std::pair{"input_scale", &inputs}, {"kv_scale", &caches}}) {
      if (!a.contains(key)) continue;
      ++*count;
      // Behind rounded inputs a value may fall to the other side; the largest moves by a step.
      const double expected = a.at(key);
      EXPECT_NEAR(b.at(key).get<double>(), expected, 0.02 * expected) << a.at("tensor") << key;
    }
  }
  EXPECT_EQ(inputs, 14);
  EXPECT_EQ(caches, 4);
}

TEST_F(TorchQuantize, GathersAnImportanceMatrix) {
  std::map<std::string, ImportanceMatrix> matrices;
  for (const std::string backend : {"runtime", "torch"}) {
    ImatrixStage gather;
    gather.options.model = model_;
    gather.options.output = folder_.file(backend + ".gguf");
    gather.options.calibration = {text_};
    gather.options.backend = backend;
    Context context;
    const Plan plan = gather.plan({.context = &context});
    EXPECT_EQ(plan.details.at("forward").at("backend"), backend);
    gather.run(plan, context);
    matrices[backend] = ImportanceMatrix::open(gather.options.output);
  }
  ASSERT_EQ(matrices["torch"].entries.size(), matrices["runtime"].entries.size());
  for (const auto& [name, entry] : matrices["runtime"].entries) {
    const auto& other = matrices["torch"].entries.at(name);
    EXPECT_EQ(other.tokens, entry.tokens);
    EXPECT_LE(apart(entry.mean_squares, other.mean_squares), kTolerance) << name;
  }
}

/// Ends the run, as an interrupt would, at the given update.
class Stopper : public Progress {
 public:
  explicit Stopper(int at) : left_(at) {}
  void begin(const std::string&, uint64_t, const std::string&, uint64_t) override {}
  void update(uint64_t, const std::string&) override {
    if (--left_ == 0) throw Error(ExitCode::kInterrupted, "interrupted");
  }
  void end(const std::string&) override {}
  void note(const std::string&) override {}

 private:
  int left_;
};

TEST_F(TorchQuantize, IsResumedOnlyAsItBegan) {
  QuantizeStage clean = stage("clean.gguf", "torch");
  test::quantize(clean);
  const auto interrupt = [&] {
    fs::remove(folder_.file("out.gguf"));
    QuantizeStage first = stage("out.gguf", "torch");
    Stopper stopper(2);
    const auto [code, message] =
        test::failure_of([&] { test::quantize(first, {.resume = true, .progress = &stopper}); });
    EXPECT_EQ(code, ExitCode::kInterrupted) << message;
  };
  interrupt();
  QuantizeStage other = stage("out.gguf", "runtime");
  const auto [code, message] = test::failure_of([&] { test::quantize(other, {.resume = true}); });
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_TRUE(test::contains(message, "backend was \"torch\" and is \"runtime\"")) << message;
  EXPECT_TRUE(test::contains(message, "--allow-drift")) << message;
  QuantizeStage rough = stage("out.gguf", "torch");
  rough.options.forward_dtype = "bf16";
  EXPECT_EQ(test::failure_of([&] { test::quantize(rough, {.resume = true}); }).first,
            ExitCode::kUsage);
  QuantizeStage same = stage("out.gguf", "torch");
  test::quantize(same, {.resume = true});
  EXPECT_TRUE(test::slurp(folder_.file("out.gguf")) == test::slurp(folder_.file("clean.gguf")));
  interrupt();
  const Report drifted = test::quantize(other, {.resume = true, .allow_drift = true});
  EXPECT_TRUE(drifted.contains("drift"));
  EXPECT_FALSE(fs::exists(folder_.file("out.gguf.partial.conditions")));
}

TEST_F(TorchQuantize, NamesWhatIsNotFinite) {
  const auto model = Model::open(model_);
  ReplacedWeights broken(*model);
  TensorView norm = model->view("blk.1.ffn_norm.weight");
  const auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(norm.elements()));
  (*values)[5] = NAN;
  norm.dtype = DType::kF32;
  norm.data = reinterpret_cast<const std::byte*>(values->data());
  norm.owner = values;
  broken.replace("blk.1.ffn_norm.weight", norm);
  const CalibrationData data = windows_for(*model, through_torch());
  const auto runner = BlockRunner::create(*model, data, "");
  runner->embed(broken);
  InputStatistics statistics("blk.1.ffn_up.weight", 128, true);
  const auto [code, message] = test::failure_of([&] {
    runner->observe_group(broken, 1, Branch::kFfn, {"blk.1.ffn_gate.weight", "blk.1.ffn_up.weight"},
                          statistics);
  });
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_TRUE(test::contains(message, "nan at token 0, channel 5")) << message;
}

std::vector<std::string> arguments(const std::string& model, const std::string& text,
                                   const std::string& output) {
  return {"quantize", model,      "-o",   output,          "--scheme",
          "q4_0",     "--method", "gptq", "--calibration", text};
}

TEST_F(TorchQuantize, TheProgramTakesTheBackend) {
  std::vector<std::string> words = arguments(model_, text_, folder_.file("cli.gguf"));
  for (const char* word : {"--backend", "torch", "--forward-dtype", "bf16"}) words.push_back(word);
  words.push_back("--dry-run");
  const test::ProgramResult plan = test::run_slmc(words);
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_TRUE(test::contains(plan.out, " on cpu, bf16 products")) << plan.out;
  words.pop_back();
  const test::ProgramResult done = test::run_slmc(words);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_TRUE(test::contains(done.out, "calibration by LibTorch ")) << done.out;
  EXPECT_TRUE(fs::exists(folder_.file("cli.gguf")));
}

TEST_F(TorchQuantize, ADeviceThatIsNotThereIsRefusedBeforeTheWork) {
  const std::string missing = test::no_gpu();
  const std::string device = missing.empty() ? "cuda:99" : "cuda";
  for (const bool dry : {true, false}) {
    std::vector<std::string> words = arguments(model_, text_, folder_.file("never.gguf"));
    words.insert(words.end(), {"--device", device});
    if (dry) words.push_back("--dry-run");
    const test::ProgramResult refused = test::run_slmc(words);
    EXPECT_EQ(refused.exit_code, 4);
    EXPECT_TRUE(test::contains(refused.err, "--device " + device + ": this ")) << refused.err;
    EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;
    EXPECT_FALSE(fs::exists(folder_.file("never.gguf")));
  }
  const test::ProgramResult matrix =
      test::run_slmc({"imatrix", model_, "-o", folder_.file("m.gguf"), "--calibration", text_,
                      "--device", device});
  EXPECT_EQ(matrix.exit_code, 4) << matrix.err;
}

}  // namespace
}  // namespace slmc::testing
