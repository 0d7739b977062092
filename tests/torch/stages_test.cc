// Every family through every stage, on the fixtures that transformers made: what a stage writes
// opens, and the runtime and LibTorch agree on it. A family added later is swept without an edit.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/random.h"
#include "compress/core/torch_module.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/encoder.h"
#include "distill/stage.h"
#include "prune/stage.h"
#include "quantize/stage.h"
#include "tests/support/golden.h"
#include "tests/support/tiny_model.h"

namespace slmc::testing {
namespace {

namespace fs = std::filesystem;
using Floats = std::vector<float>;

/// A byte-level tokenizer of letters, digits and a space: the fixtures' vocabulary has 96 rows.
std::string small_tokenizer() {
  Json vocab = {{"<s>", 0}, {"</s>", 1}};
  for (char c = 'a'; c <= 'z'; ++c) vocab[std::string(1, c)] = vocab.size();
  for (char c = '0'; c <= '9'; ++c) vocab[std::string(1, c)] = vocab.size();
  for (const char* token : {"\xc4\xa0", "th", "he"}) vocab[token] = vocab.size();
  const auto special = [](int id, const char* content) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", true}};
  return Json{{"version", "1.0"},
              {"added_tokens", {special(0, "<s>"), special(1, "</s>")}},
              {"normalizer", nullptr},
              {"pre_tokenizer", bytes},
              {"post_processor", nullptr},
              {"decoder", bytes},
              {"model",
               {{"type", "BPE"},
                {"vocab", vocab},
                {"merges", Json::array({Json::array({"t", "h"}), Json::array({"h", "e"})})}}}}
      .dump();
}

std::string words(size_t characters) {
  Random random(1);
  std::string text;
  while (text.size() < characters) {
    for (uint64_t length = 2 + random.below(8), i = 0; i < length; ++i)
      text += static_cast<char>('a' + random.below(26));
    text += ' ';
  }
  return text;
}

class Stages : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    fs::copy(std::string(SLMC_FIXTURES) + "/models/" + GetParam(), model_,
             fs::copy_options::recursive);
    test::spit(model_ + "/tokenizer.json", small_tokenizer());
    test::spit(model_ + "/tokenizer_config.json", R"({"bos_token":"<s>","eos_token":"</s>"})");
    test::spit(text_, words(3000));
  }

  /// The runtime's and LibTorch's logits of a written model, 40 tokens.
  void expect_agreement(const std::string& path) {
    const auto model = Model::open(path);
    const std::vector<int32_t> ids = golden_prompt(40, model->arch().vocab);
    Floats ours;
    if (model->arch().encoder) {
      ours = Encoder::create(*model, Activations::kF32)->encode(ids);
    } else {
      const auto decoder = Decoder::create(*model, Activations::kF32);
      ours.resize(ids.size() * static_cast<size_t>(model->arch().vocab));
      decoder->forward(*decoder->new_cache(40), ids, ours.data(), false);
    }
    const Floats theirs = torch_module(Context{}).logits(*model, ids, {}, "cpu");
    ASSERT_EQ(ours.size(), theirs.size());
    double largest = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      const double apart = std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i]));
      if (!(apart <= largest)) largest = apart;
    }
    EXPECT_LE(largest, kLogitTolerance) << path;
  }

  /// True if no GGUF can hold the model, for a reason that is said.
  bool gguf_is_refused() {
    const auto model = Model::open(model_);
    QuantizeStage stage;
    stage.options.model = model_;
    stage.options.output = folder_.file("asked.gguf");
    stage.options.scheme = "q8_0";
    try {
      stage.plan({});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUnsupported) << error.what();
      return true;
    }
    return false;
  }

  Report quantize(const std::string& output, const std::string& scheme, const std::string& method) {
    QuantizeStage stage;
    stage.options.model = model_;
    stage.options.output = folder_.file(output);
    stage.options.scheme = scheme;
    stage.options.method = method;
    if (method != "nearest") {
      stage.options.calibration = {text_};
      stage.options.calibration_context = 64;
    }
    Context context;
    return stage.run(stage.refine(stage.plan({}), context), context);
  }

  test::TemporaryFolder folder_;
  std::string model_ = folder_.file("m"), text_ = folder_.file("text.txt");
};

TEST_P(Stages, QuantizeByRounding) {
  if (gguf_is_refused()) GTEST_SKIP() << "no GGUF can hold it";
  const Report report = quantize("out.gguf", "q8_0", "nearest");
  EXPECT_TRUE(report.at("types").contains("q8_0"));
  expect_agreement(folder_.file("out.gguf"));
}

TEST_P(Stages, PruneByMasks) {
  PruneStage stage;
  stage.options.model = model_;
  stage.options.output = folder_.file("out");
  stage.options.sparsity = "0.5";
  Context context;
  const Report report = stage.run(stage.plan({}), context);
  EXPECT_GT(report.at("sparsity").get<double>(), 0.2);
  expect_agreement(folder_.file("out"));
}

class DecoderStages : public Stages {};

TEST_P(DecoderStages, QuantizeByGptq) {
  if (gguf_is_refused()) GTEST_SKIP() << "no GGUF can hold it";
  const Report report = quantize("out.gguf", "q4_0", "gptq");
  int by_gptq = 0;
  for (const Json& row : report.at("tensors")) by_gptq += row.at("method_used") == "gptq";
  EXPECT_GT(by_gptq, 4);
  expect_agreement(folder_.file("out.gguf"));
}

TEST_P(DecoderStages, DistilAndQuantizeTheStudent) {
  DistillOptions options;
  options.teacher = model_;
  options.student = "layers:1";
  options.data = {text_};
  options.output = folder_.file("student");
  options.steps = 3;
  options.batch = 2;
  options.context = 64;
  options.lr = 1e-4;
  options.save_dtype = "f32";
  const auto stage = make_distill_stage(options);
  Context context;
  const Report report = stage->run(stage->plan({}), context);
  EXPECT_TRUE(std::isfinite(report.at("training").at("final_loss").get<double>()));
  EXPECT_EQ(Model::open(options.output)->arch().layers, 1);
  expect_agreement(options.output);
}

/// A stored plan says what is trained, from whom and how it is compared; the output is the plan's.
TEST(StoredPlan, OfTrainingHolds) {
  const test::TemporaryFolder folder;
  const std::string model = folder.file("model");
  test::write_tiny_model(model, {.layers = 2});
  DistillOptions options;
  options.teacher = model;
  options.student = "layers:1";
  options.data = {folder.write("train.txt", words(4000))};
  options.output = folder.file("student");
  options.steps = 1;
  options.batch = 2;
  options.context = 32;
  options.loss = "reverse_kl";
  const Plan plan = plan_from_json(plan_to_json(make_distill_stage(options)->plan({})), "plan");
  options.teacher = options.student = "elsewhere";
  options.loss = "forward_kl";
  options.output = folder.file("other");
  Context context;
  const Report report = make_distill_stage(options)->run(plan, context);
  EXPECT_EQ(report.at("options").at("loss"), "reverse_kl");
  EXPECT_EQ(report.at("inputs").at("teacher").at("path"), model);
  EXPECT_EQ(Model::open(folder.file("student"))->arch().layers, 1);
}

std::vector<std::string> all_fixtures() {
  std::vector<std::string> names = golden_names();
  for (const std::string& name : golden_names("lengths")) names.push_back(name);
  return names;
}

const auto name_of = [](const auto& test) { return test.param; };
INSTANTIATE_TEST_SUITE_P(Fixtures, Stages, ::testing::ValuesIn(all_fixtures()), name_of);
INSTANTIATE_TEST_SUITE_P(Fixtures, DecoderStages, ::testing::ValuesIn(golden_names()), name_of);

}  // namespace
}  // namespace slmc::testing
