// What the distill stage says before it does anything: its plan, and errors that can be known from
// headers.
#include "distill/stage.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "compress/core/error.h"
#include "distill/vocabulary.h"
#include "formats/tokenizer/tokenizer.h"
#include "quantize/stage.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

class DistillPlan : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("teacher"),
                           {.layers = 4, .context = 64, .dtype = DType::kBF16});
    test::spit(folder_.file("text.txt"), std::string(4000, 'a'));
  }
  DistillOptions options() const {
    DistillOptions o;
    o.teacher = folder_.file("teacher");
    o.student = "layers:2";
    o.data = {folder_.file("text.txt")};
    o.output = folder_.file("out");
    o.context = 32;
    o.steps = 10;
    return o;
  }
  static Plan plan(const DistillOptions& o) { return make_distill_stage(o)->plan({}); }
  std::string error(const DistillOptions& o) const {
    return test::error_of([&] { plan(o); });
  }
  test::TemporaryFolder folder_;
};

TEST_F(DistillPlan, ListsTheStudentsTensorsAndWritesNothing) {
  const Plan p = plan(options());
  EXPECT_EQ(p.rows.size(), 2 * 9 + 2u);  // Tied: embedding, nine a layer, output norm.
  EXPECT_EQ(p.rows.front().from, "bf16");
  EXPECT_EQ(p.rows.front().to, "bf16");
  EXPECT_GT(p.predicted_peak_bytes, 0u);
  EXPECT_GT(p.predicted_seconds, 0);
  EXPECT_FALSE(std::filesystem::exists(folder_.file("out")));
}

// The types of the written file are those that quantize would choose for the trained model.
TEST_F(DistillPlan, ListsTheTypesOfAQuantizedProduct) {
  DistillOptions o = options();
  o.student = o.teacher;
  o.output = folder_.file("out.gguf");
  o.quantize = "q4_0";
  const Plan trained = plan(o);
  QuantizeStage stage;
  stage.options.model = o.teacher;
  stage.options.output = o.output;
  stage.options.scheme = "q4_0";
  const Plan rounded = stage.plan({});
  ASSERT_EQ(trained.rows.size(), rounded.rows.size());
  for (size_t i = 0; i < trained.rows.size(); ++i) {
    EXPECT_EQ(trained.rows[i].to, rounded.rows[i].to) << trained.rows[i].tensor;
    EXPECT_EQ(trained.rows[i].bytes_after, rounded.rows[i].bytes_after) << trained.rows[i].tensor;
  }
}

TEST_F(DistillPlan, TakesTheLayersThatAreNamed) {
  DistillOptions o = options();
  o.student = "layers:0,1,3";
  EXPECT_EQ(plan(o).rows.size(), 3 * 9 + 2u);
  o.student = "layers:0,4";
  EXPECT_NE(error(o).find("found '4'"), std::string::npos) << error(o);
  o.student = "layers:0";
  EXPECT_NE(error(o).find("from 1 to"), std::string::npos) << error(o);
}

TEST_F(DistillPlan, NamedInputsReplaceOptions) {
  DistillOptions o = options();
  o.teacher.clear();
  const Plan p = make_distill_stage(o)->plan(
      {.paths = {{"teacher", folder_.file("teacher")}, {"output", folder_.file("other")}}});
  EXPECT_EQ(p.output, folder_.file("other"));
}

TEST_F(DistillPlan, ErrorsSayWhatToDo) {
  DistillOptions o = options();
  o.student = "layers:5";
  EXPECT_NE(error(o).find("the teacher's 4"), std::string::npos) << error(o);
  o.student = "layers:x";
  EXPECT_NE(error(o).find("layers:N"), std::string::npos) << error(o);
  o = options();
  o.teacher.clear();
  EXPECT_NE(error(o).find("--teacher"), std::string::npos) << error(o);
  o = options();
  o.context = 65;
  EXPECT_NE(error(o).find("64"), std::string::npos) << error(o);
  o = options();
  o.tokens = 5;
  EXPECT_NE(error(o).find("one of"), std::string::npos) << error(o);
  o = options();
  o.data = {folder_.file("absent.txt")};
  EXPECT_NE(error(o).find("absent.txt"), std::string::npos) << error(o);
  o = options();
  o.quantize = "q4_0";
  EXPECT_NE(error(o).find("out.gguf"), std::string::npos) << error(o);
  o.output = folder_.file("x.gguf");
  EXPECT_EQ(error(o), "");
  o.quantize = "q4_9";
  EXPECT_NE(error(o).find("did you mean"), std::string::npos) << error(o);
  o = options();
  o.loss = "forward_kl:0.5,mse_hiden:0.5";
  EXPECT_NE(error(o).find("did you mean 'mse_hidden'"), std::string::npos) << error(o);
  o.loss = "mse_hidden(layers=0:4)";
  EXPECT_NE(error(o).find("teacher's block"), std::string::npos) << error(o);
  o = options();
  o.patience = 2;
  EXPECT_NE(error(o).find("--eval-every"), std::string::npos) << error(o);
  o = options();
  o.eval_every = 5;
  EXPECT_NE(error(o).find("--eval-text"), std::string::npos) << error(o);
  o = options();
  o.teacher.clear();
  o.student = folder_.file("teacher");
  EXPECT_EQ(error(o), "") << "the default is for a teacher alone";
  o.loss = "reverse_kl";
  EXPECT_NE(error(o).find("--teacher"), std::string::npos) << error(o);
  o = options();
  o.teacher.clear();
  o.student = folder_.file("teacher/config.json");
  EXPECT_NE(error(o).find("--tokenizer"), std::string::npos) << error(o);
}

// Gemma 3's tokenizer has a token for images behind the last row of its embedding.
TEST(Vocabulary, OnlySpecialTokensMayLieBeyondTheEmbedding) {
  Json json = Json::parse(test::tiny_tokenizer_json());
  const auto size = [&] { return Tokenizer::from_json(json.dump(), Json(), "t")->vocab_size(); };
  const int64_t rows = size();
  const auto tokens = [&] {
    return tokens_with_rows(*Tokenizer::from_json(json.dump(), Json(), "t"), rows, "model");
  };
  EXPECT_EQ(tokens(), rows);
  Json image = json["added_tokens"][0];
  image["id"] = rows;
  image["content"] = "<image_soft_token>";
  json["added_tokens"].push_back(image);
  ASSERT_EQ(size(), rows + 1);
  EXPECT_EQ(tokens(), rows);
  json["added_tokens"].back()["special"] = false;
  EXPECT_NE(test::error_of([&] { tokens(); }).find("rows"), std::string::npos);
}

TEST_F(DistillPlan, AnotherVocabularyIsRefusedByToken) {
  test::write_tiny_model(folder_.file("other"), {.layers = 2, .context = 64});
  std::string json = test::slurp(folder_.file("other/tokenizer.json"));
  const size_t at = json.find("<|begin|>");
  ASSERT_NE(at, std::string::npos);
  for (size_t i = at; i != std::string::npos; i = json.find("<|begin|>", i))
    json.replace(i, 9, "<|start|>");
  test::spit(folder_.file("other/tokenizer.json"), json);
  std::string config = test::slurp(folder_.file("other/tokenizer_config.json"));
  config.replace(config.find("<|begin|>"), 9, "<|start|>");
  test::spit(folder_.file("other/tokenizer_config.json"), config);
  const auto teacher = Model::open(folder_.file("teacher"));
  const std::string message = test::error_of([&] {
    shared_vocabulary("", teacher.get(), student_from_checkpoint(folder_.file("other")));
  });
  EXPECT_NE(message.find("<|begin|>"), std::string::npos) << message;
  EXPECT_NE(message.find("<|start|>"), std::string::npos) << message;
  EXPECT_EQ(
      shared_vocabulary("", teacher.get(), student_from_checkpoint(folder_.file("teacher"))).size,
      teacher->tokenizer().vocab_size());
}

}  // namespace
}  // namespace slmc
