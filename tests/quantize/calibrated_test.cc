// Quantization with calibration: what it reports and refuses, that its bytes depend on nothing but
// the question, and that a killed run goes on to the same bytes.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "compress/core/random.h"
#include "compress/core/text.h"
#include "quantize/imatrix.h"
#include "quantize/imatrix_stage.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

namespace fs = std::filesystem;

class Calibrated : public testing::Test {
 protected:
  Calibrated() {
    write_tiny_model(model_, {.hidden = 64, .ffn = 96});
    spit(text_, random_text(6000));
  }
  QuantizeStage stage(const std::string& output, const std::string& method) const {
    QuantizeStage quantizer = quantize_stage(model_, folder_.file(output), "q4_0");
    quantizer.options.method = method;
    quantizer.options.calibration = {text_};
    quantizer.options.calibration_context = 64;
    quantizer.options.rule = {"token_embd=q8_0"};
    return quantizer;
  }
  TemporaryFolder folder_;
  std::string model_ = folder_.file("model"), text_ = folder_.file("text.txt");
};

TEST_F(Calibrated, ReportsWhatWasDoneToEachTensor) {
  for (const std::string method : {"imatrix", "gptq"}) {
    QuantizeStage quantizer = stage(method + ".gguf", method);
    const Report report = quantize(quantizer);
    EXPECT_EQ(report.at("calibration").at("context"), 64);
    const int64_t tokens = report.at("calibration").at("tokens");
    EXPECT_GT(tokens, 1000);
    for (const Json& row : report.at("tensors")) {
      const std::string name = row.at("tensor");
      if (row.at("to") == "f32") continue;
      EXPECT_EQ(row.at("method_asked"), method);
      EXPECT_EQ(row.at("method_used"), method) << name;
      EXPECT_EQ(row.at("tokens"), tokens) << name;
      EXPECT_GT(row.at("weighted_error").get<double>(), 0.0) << name;
      EXPECT_TRUE(row.contains("dead_columns")) << name;
      EXPECT_EQ(row.contains("damping"), method == "gptq") << name;
    }
    EXPECT_FALSE(fs::exists(folder_.file(method + ".gguf.partial.facts")));
  }
}

TEST_F(Calibrated, GptqLosesLessThanRounding) {
  // Cost on the calibration text itself: what the methods minimise.
  double last = 1e9;
  for (const std::string method : {"nearest", "gptq"}) {
    QuantizeStage quantizer = stage(method + ".gguf", method);
    if (method == "nearest") quantizer.options.calibration.clear();
    quantizer.options.eval_text = text_;
    const Report report = quantize(quantizer);
    const double kld = report.at("cost").at("against").at("kld_mean");
    EXPECT_LT(kld, 0.9 * last) << method;
    last = kld;
  }
}

TEST_F(Calibrated, TheBytesDoNotDependOnThreads) {
  const int before = threads();
  std::string first;
  for (const int count : {1, 2, 7}) {
    set_threads(count);
    QuantizeStage quantizer = stage("threads.gguf", "gptq");
    quantize(quantizer, {.force = true});
    const std::string bytes = slurp(folder_.file("threads.gguf"));
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first) << count;
  }
  set_threads(before);
}

TEST_F(Calibrated, SpillsHiddenStatesWhenMemoryIsBounded) {
  QuantizeStage quantizer = stage("memory.gguf", "gptq");
  quantizer.options.check = "bytes";  // Measuring the file takes more than so small a model itself.
  const Plan plan = quantizer.plan({});
  const Report free = quantizer.run(plan, *std::make_unique<Context>());
  const uint64_t spilled = plan.least_peak_bytes;
  EXPECT_LT(spilled, plan.predicted_peak_bytes);
  Context just{.max_ram = spilled};
  const Plan bounded = quantizer.refine(plan, just);
  EXPECT_EQ(bounded.predicted_peak_bytes, spilled) << "or whoever runs it would refuse it";
  EXPECT_TRUE(bounded.details.at("spill").get<bool>());
  // A plan that was stored without a bound keeps to one too.
  const Plan stored = plan_from_json(plan_to_json(plan), "plan");
  EXPECT_NO_THROW(check_predicted_ram(stored, just));
  EXPECT_TRUE(is_tight(stored, just));
  // What the process has taken so far is over it, so the run itself is not made here.
  QuantizeStage refused = stage("bounded.gguf", "gptq");
  refused.options.check = "bytes";
  Context tight{.max_ram = spilled - 1};
  const auto [code, message] = failure_of([&] { refused.run(refused.plan({}), tight); });
  EXPECT_EQ(code, ExitCode::kResources);
  EXPECT_FALSE(fs::exists(folder_.file("bounded.gguf")));
}

// llama-quantize gives the first eighth of q4_0's ffn_down more with an importance matrix.
TEST_F(Calibrated, MixesAreThoseOfLlamaQuantizeForTheMethod) {
  write_tiny_model(folder_.file("deep"), {.layers = 8});
  for (const auto& [method, type] :
       {std::pair{"imatrix", "q4_1"}, {"gptq", "q4_0"}, {"awq", "q4_0"}}) {
    QuantizeStage quantizer = stage("deep.gguf", method);
    quantizer.options.model = folder_.file("deep");
    for (const PlanRow& row : quantizer.plan({}).rows) {
      if (row.tensor == "blk.0.ffn_down.weight") {
        EXPECT_EQ(row.to, type) << method;
      } else if (row.tensor == "blk.1.ffn_down.weight") {
        EXPECT_EQ(row.to, "q4_0") << method;
      }
    }
  }
}

TEST_F(Calibrated, RefusesWhatCannotBeMeant) {
  const auto refused = [&](const auto& change, ExitCode expected, const std::string& part) {
    QuantizeStage quantizer = stage("never.gguf", "gptq");
    change(quantizer.options);
    const auto [code, message] = failure_of([&] { quantize(quantizer); });
    EXPECT_EQ(code, expected) << message;
    EXPECT_TRUE(contains(message, part)) << message;
    EXPECT_FALSE(fs::exists(folder_.file("never.gguf")));
  };
  refused([](auto& o) { o.calibration_tokens = 1000000; }, ExitCode::kBadInput,
          "expected 1000000 tokens");
  refused([](auto& o) { o.calibration.clear(); }, ExitCode::kUsage, "needs calibration text");
  refused([](auto& o) { o.method = "nearest"; }, ExitCode::kUsage, "does not look at inputs");
  refused([&](auto& o) { o.calibration = {folder_.file("no.txt")}; }, ExitCode::kBadInput,
          "not a file");
  refused([](auto& o) { o.calibration_context = 100000; }, ExitCode::kUsage, "at most");
  for (const int64_t context : {5, 100000}) {  // Before any text is read.
    QuantizeStage quantizer = stage("never.gguf", "gptq");
    quantizer.options.calibration_context = context;
    EXPECT_EQ(failure_of([&] { quantizer.plan({}); }).first, ExitCode::kUsage);
  }
  refused(
      [&](auto& o) {
        o.calibration.clear();
        o.imatrix = text_;
      },
      ExitCode::kUsage, "correlations");
  refused([](auto& o) { o.method = "imatrix", o.act_order = true; }, ExitCode::kUsage,
          "--act-order belongs to method gptq");
  refused([](auto& o) { o.model = SLMC_FIXTURES "/models/bert_first", o.rule.clear(); },
          ExitCode::kUnsupported, "encoder");
}

// What text has more tokens of than its bytes promise counts before the work begins.
TEST_F(Calibrated, MemoryIsForetoldFromTheTokensThatThereAre) {
  std::string dense;  // One token a byte.
  for (int i = 0; i < 40000; ++i) dense += static_cast<char>('0' + i * 7 % 10);
  spit(text_, dense);
  QuantizeStage quantizer = stage("out.gguf", "imatrix");
  Context context;
  const Plan guess = quantizer.plan({}), known = quantizer.refine(guess, context);
  EXPECT_GT(known.predicted_peak_bytes, guess.predicted_peak_bytes);
}

TEST_F(Calibrated, LooksTheTextOver) {
  const std::string line = random_text(400, 3);
  std::string repeated;
  for (int i = 0; i < 10; ++i) repeated += line;
  spit(text_, repeated);
  QuantizeStage quantizer = stage("lint.gguf", "imatrix");
  Context context;
  const Plan plan = quantizer.refine(quantizer.plan({}), context);
  std::string notes;
  for (const std::string& note : plan.notes) notes += note + "\n";
  EXPECT_TRUE(contains(notes, "repeats earlier text")) << notes;
  spit(text_, random_text(200));
  const Plan few = quantizer.refine(quantizer.plan({}), context);
  notes.clear();
  for (const std::string& note : few.notes) notes += note + "\n";
  EXPECT_TRUE(contains(notes, "poorly known")) << notes;
}

TEST_F(Calibrated, ImportanceMatricesTravelAsFiles) {
  ImatrixStage gather;
  gather.options.model = model_;
  gather.options.output = folder_.file("m.gguf");
  gather.options.calibration = {text_};
  gather.options.calibration_context = 64;
  Context context;
  gather.run(gather.plan({}), context);
  const ImportanceMatrix matrix = ImportanceMatrix::open(folder_.file("m.gguf"));
  EXPECT_EQ(matrix.entries.size(), 2u * 7 + 1);
  EXPECT_EQ(matrix.chunk_size, 64);
  EXPECT_EQ(matrix.datasets, std::vector<std::string>{text_});

  QuantizeStage quantizer = stage("from-matrix.gguf", "imatrix");
  quantizer.options.calibration.clear();
  quantizer.options.imatrix = folder_.file("m.gguf");
  const Report report = quantize(quantizer);
  for (const Json& row : report.at("tensors")) {
    if (row.at("to") == "f32") continue;
    EXPECT_EQ(row.at("method_used"), "imatrix") << row.at("tensor");
  }

  write_tiny_model(folder_.file("other"), {.hidden = 128});
  quantizer.options.model = folder_.file("other");
  quantizer.options.output = folder_.file("other.gguf");
  const auto [code, message] = failure_of([&] { quantizer.plan({}); });
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_TRUE(contains(message, "another model")) << message;

  ImportanceMatrix partial = matrix;
  partial.entries.erase("blk.0.attn_q.weight");
  partial.write(folder_.file("partial.gguf"), false);
  quantizer = stage("partial-out.gguf", "imatrix");
  quantizer.options.calibration.clear();
  quantizer.options.imatrix = folder_.file("partial.gguf");
  const auto [missing, text] = failure_of([&] { quantize(quantizer); });
  EXPECT_EQ(missing, ExitCode::kUnsupported);
  EXPECT_TRUE(contains(text, "--allow-fallback")) << text;
  quantizer.options.allow_fallback = true;
  const Json allowed = quantize(quantizer);
  for (const Json& row : allowed.at("tensors")) {
    if (row.at("tensor") != "blk.0.attn_q.weight") continue;
    EXPECT_EQ(row.at("method_used"), "nearest");
    EXPECT_TRUE(contains(row.at("note"), "fallback")) << row;
  }
}

// llama.cpp speaks of the tensors of a GGUF, which fuses some families'.
TEST(ImportanceMatrix, FusedTensorsShareTheirInputs) {
  const std::shared_ptr<const Model> model =
      Model::open(std::string(SLMC_SOURCE_DIR) + "/tests/fixtures/models/phi3_short");
  const Architecture& arch = model->arch();
  ImportanceMatrix matrix;
  const auto entry = [](int64_t width, float value) {
    return ImportanceMatrix::Entry{std::vector<float>(static_cast<size_t>(width), value), 100};
  };
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    const std::string block = cat("blk.", layer, ".");
    matrix.entries[block + "attn_qkv.weight"] = entry(arch.hidden, 1);
    matrix.entries[block + "attn_output.weight"] = entry(arch.heads * arch.head_dim, 2);
    matrix.entries[block + "ffn_up.weight"] = entry(arch.hidden, 3);
    matrix.entries[block + "ffn_down.weight"] = entry(arch.ffn, 4);
  }
  const ImportanceMatrix files = matrix;
  matrix.adopt(*model, "m.gguf");
  for (const auto& [part, value] : std::vector<std::pair<std::string, float>>{{"attn_q", 1},
                                                                              {"attn_k", 1},
                                                                              {"attn_v", 1},
                                                                              {"attn_output", 2},
                                                                              {"ffn_gate", 3},
                                                                              {"ffn_up", 3},
                                                                              {"ffn_down", 4}}) {
    const auto found = matrix.entries.find("blk.0." + part + ".weight");
    ASSERT_NE(found, matrix.entries.end()) << part;
    EXPECT_EQ(found->second.mean_squares.front(), value) << part;
  }
  EXPECT_EQ(matrix.entries.size(), static_cast<size_t>(7 * arch.layers));
  matrix.use_file_names(*model);
  ASSERT_EQ(matrix.entries.size(), files.entries.size());
  for (const auto& [name, kept] : files.entries)
    EXPECT_EQ(matrix.entries.at(name).mean_squares, kept.mean_squares) << name;

  ImportanceMatrix shallow = files;
  std::erase_if(shallow.entries, [&](const auto& of) {
    return of.first.starts_with(cat("blk.", arch.layers - 1, "."));
  });
  const auto [code, message] = failure_of([&] { shallow.adopt(*model, "m.gguf"); });
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_TRUE(contains(message, "another model")) << message;
}

// The victim: this program again, killed from outside.
TEST(CalibratedResume, DISABLED_Victim) {
  const char* folder = std::getenv("SLMC_TEST_FOLDER");
  if (folder == nullptr) GTEST_SKIP() << "only run by KilledAtRandomPoints";
  set_threads(2);
  const std::string base = folder;
  QuantizeStage stage = quantize_stage(base + "/model", base + "/out.gguf", "q4_0");
  stage.options.method = "gptq";
  stage.options.calibration = {base + "/text.txt"};
  stage.options.calibration_context = 64;
  stage.options.rule = {"token_embd=q8_0"};
  quantize(stage);
}

TEST_F(Calibrated, KilledAtRandomPointsItWritesTheSameBytes) {
  QuantizeStage clean = stage("clean.gguf", "gptq");
  const Report expected = quantize(clean);
  const std::string bytes = slurp(folder_.file("clean.gguf"));
  setenv("SLMC_TEST_FOLDER", folder_.path().c_str(), 1);
  Random random(5);
  const auto total = expected.at("seconds").get<double>() + 0.05;
  int interrupted = 0;
  for (int point = 0; point < 20; ++point) {
    const pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "/proc/self/exe", "--gtest_filter=CalibratedResume.DISABLED_Victim",
            "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
      _exit(127);
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(total * random.uniform()));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    interrupted += fs::exists(folder_.file("out.gguf.partial"));
    fs::remove(folder_.file("out.gguf"));
    QuantizeStage rest = stage("out.gguf", "gptq");
    const Report report = quantize(rest, {.resume = true});
    EXPECT_EQ(slurp(folder_.file("out.gguf")), bytes) << point;
    for (size_t i = 0; i < report.at("tensors").size(); ++i) {
      const Json &row = report.at("tensors")[i], &wanted = expected.at("tensors")[i];
      EXPECT_EQ(row.at("method_used"), wanted.at("method_used")) << row.at("tensor");
      EXPECT_EQ(row.value("damping", 0.0), wanted.value("damping", 0.0)) << row.at("tensor");
    }
    fs::remove(folder_.file("out.gguf"));
  }
  unsetenv("SLMC_TEST_FOLDER");
  EXPECT_GT(interrupted, 0);
}

}  // namespace
}  // namespace slmc::test
