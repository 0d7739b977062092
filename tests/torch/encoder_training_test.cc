// Encoders as a user trains them: from a configuration on masked tokens, then on labels, with a
// teacher; what is written, what it is worth, and that the figure is the file's.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <sstream>

#include "compress/core/json.h"
#include "compress/core/random.h"
#include "compress/core/text.h"
#include "formats/model.h"
#include "tests/support/run_program.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using test::run_slmc;
using Options = std::map<std::string, std::string>;

const char* const kWords[] = {"[PAD]",  "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the",   "my",  "card",
                              "money",  "is",    "lost",  "gone",  "stolen", "where", "did", "go",
                              "please", "send",  "new",   "back",  "when",   "comes", "it",  "?"};

Json word_tokenizer() {
  Json vocab = Json::object(), added = Json::array();
  int id = 0;
  for (const char* word : kWords) {
    if (id < 5)
      added.push_back({{"id", id},
                       {"content", word},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    vocab[word] = id++;
  }
  const auto special = [](const char* name) {
    return Json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  const auto sequence = [](const char* name) {
    return Json{{"Sequence", {{"id", name}, {"type_id", 0}}}};
  };
  const auto ids = [](const char* name, int number) {
    return Json{{"id", name}, {"ids", {number}}, {"tokens", {name}}};
  };
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", true},
            {"strip_accents", nullptr},
            {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single", {special("[CLS]"), sequence("A"), special("[SEP]")}},
            {"pair",
             {special("[CLS]"), sequence("A"), special("[SEP]"), sequence("B"), special("[SEP]")}},
            {"special_tokens", {{"[CLS]", ids("[CLS]", 2)}, {"[SEP]", ids("[SEP]", 3)}}}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", vocab}}}};
}

/// Questions about a card that is lost or new, or about money; the label says which.
std::string questions(int count, uint64_t seed, bool labelled) {
  const char* const endings[][2] = {{"is gone", "is stolen"}, {"send new", "comes back"}};
  const char* const starts[] = {"please", "where", "when", "the", "my"};
  Random random(seed);
  std::string out;
  for (int i = 0; i < count; ++i) {
    const uint64_t kind = random.below(3), ending = random.below(2);
    const std::string text = cat(starts[random.below(5)], kind == 2 ? " money " : " card ",
                                 kind == 2 ? "did go" : endings[kind][ending], " ?");
    const char* const labels[] = {"lost_card", "new_card", "money"};
    Json line{{"text", text}};
    if (labelled) line["label"] = labels[kind];
    out += line.dump() + "\n";
  }
  return out;
}

class EncoderTraining : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TemporaryFolder;
    folder_->write("tokenizer/tokenizer.json", word_tokenizer().dump());
    folder_->write("tokenizer/tokenizer_config.json",
                   R"({"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"})");
    folder_->write("bert/config.json", R"({"architectures": ["BertForMaskedLM"],
      "model_type": "bert", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
      "num_attention_heads": 4, "max_position_embeddings": 40, "vocab_size": 24,
      "initializer_range": 0.1, "type_vocab_size": 2, "pad_token_id": 0})");
    folder_->write("text.jsonl", questions(400, 1, false));
    folder_->write("held.jsonl", questions(120, 2, false));
    folder_->write("train.jsonl", questions(300, 3, true));
    folder_->write("test.jsonl", questions(60, 4, true));
    const auto run = run_slmc(pretraining("mlm", {{"--save-dtype", "f32"}}));
    ASSERT_EQ(run.exit_code, 0) << run.err;
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::vector<std::string> arguments(std::vector<std::string> command, Options options,
                                            const Options& changes) {
    for (const auto& [name, value] : changes) options[name] = value;
    for (const auto& [name, value] : options) {
      command.push_back(name);
      std::istringstream parts(value);
      for (std::string part; parts >> part;) command.push_back(part);
    }
    return command;
  }
  /// Masked tokens from random weights.
  static std::vector<std::string> pretraining(const std::string& out, const Options& changes = {}) {
    return arguments({"distill"},
                     {{"--student", folder_->file("bert/config.json")},
                      {"--tokenizer", folder_->file("tokenizer")},
                      {"--data", folder_->file("text.jsonl")},
                      {"-o", folder_->file(out)},
                      {"--context", "32"},
                      {"--batch", "8"},
                      {"--steps", "60"},
                      {"--lr", "0.01"},

                      {"--seed", "5"},
                      {"-q", ""}},
                     changes);
  }
  /// Labels, from what that gave.
  static std::vector<std::string> finetuning(const std::string& out, const Options& changes = {}) {
    return arguments({"finetune", folder_->file("mlm")},
                     {{"--data", folder_->file("train.jsonl")},
                      {"-o", folder_->file(out)},
                      {"--batch", "16"},
                      {"--steps", "30"},
                      {"--lr", "0.003"},
                      {"--context", "20"},
                      {"--seed", "5"},
                      {"-q", ""}},
                     changes);
  }
  static Json report(const std::string& out) {
    return read_json(folder_->file(out + "/slmc_report.json"));
  }
  static Json run(const std::vector<std::string>& arguments, const std::string& out) {
    const auto result = run_slmc(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? report(out) : Json();
  }
  static Json eval(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "eval");
    arguments.insert(arguments.end(), {"--activations", "f32", "--json", "-", "-q"});
    const auto result = run_slmc(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? parse_json(result.out, "eval") : Json();
  }
  static std::string weights(const std::string& out) {
    return test::slurp(folder_->file(out + "/model.safetensors"));
  }
  static test::TemporaryFolder* folder_;
};
test::TemporaryFolder* EncoderTraining::folder_ = nullptr;

TEST_F(EncoderTraining, MaskedTokensAreLearnedAndTheFigureIsTheFiles) {
  const Json before =
      eval({folder_->file("mlm"), "--text", folder_->file("held.jsonl"), "--context", "32"});
  EXPECT_EQ(before["protocol"], "masked");
  // Of 24 tokens; what is left is which of two endings.
  EXPECT_LT(before["perplexity"].get<double>(), 6.0);
  EXPECT_NEAR(before["scored_tokens"].get<double>(), 0.15 * 5 / 7 * before["tokens"].get<double>(),
              25);
  const Options measured{{"--full", ""},
                         {"--data", folder_->file("text.jsonl")},
                         {"--eval-text", folder_->file("held.jsonl")},
                         {"--context", "32"},
                         {"--eval-every", "10"},
                         {"--eval-tokens", "600"}};
  const Json held_out = run(finetuning("more", measured), "more")["training"]["held_out"];
  ASSERT_EQ(held_out.size(), 3u);
  const Json again = eval({folder_->file("more"), "--text", folder_->file("held.jsonl"),
                           "--context", "32", "--max-tokens", "600"});
  const Json best = report("more")["evaluation"];
  for (const char* key : {"perplexity", "perplexity_se", "scored_tokens", "protocol", "context"})
    EXPECT_EQ(best[key], again[key]) << key;
}

TEST_F(EncoderTraining, KilledAndResumedWritesTheSameBytes) {
  for (const bool labels : {false, true}) {
    const std::string whole = labels ? "whole" : "whole-masked",
                      killed = labels ? "killed" : "killed-masked";
    const auto command = [&](const std::string& out, const Options& changes) {
      return labels ? finetuning(out, changes) : pretraining(out, changes);
    };
    Options options;
    if (labels) options["--full"] = "";
    options["--threads"] = "2";
    ASSERT_EQ(run_slmc(command(whole, options)).exit_code, 0);
    options["--threads"] = "1";
    options["--checkpoint-every"] = "3";
    auto first = command(killed, options);
    ASSERT_EQ(
        test::run_and_signal(SLMC_PROGRAM, first,
                             folder_->file(killed + ".training.partial/state.safetensors"), SIGKILL)
            .exit_code,
        128 + SIGKILL);
    first.push_back("--resume");
    const auto second = run_slmc(first);
    ASSERT_EQ(second.exit_code, 0) << second.err;
    EXPECT_GE(report(killed)["training"]["resumed_at_step"].get<int>(), 3);
    EXPECT_TRUE(weights(whole) == weights(killed));
  }
}

TEST_F(EncoderTraining, AHeadIsMadeAndTrainedAndItsFigureIsTheFiles) {
  struct Case {
    std::string out;
    Options options;
  };
  const std::vector<Case> cases{{"full", {{"--full", ""}}},
                                {"lora", {{"--lora", "r=4"}, {"--merge", ""}, {"--lr", "0.01"}}},
                                {"upper", {{"--train-layers", "last:1"}, {"--steps", "60"}}}};
  for (auto [out, options] : cases) {
    options["--eval-text"] = folder_->file("test.jsonl");
    options["--eval-every"] = "10";
    const Json all = run(finetuning(out, options), out);
    const Json best = all["evaluation"];
    const Json task =
        eval({folder_->file(out), "--tasks", folder_->file("test.jsonl")})["tasks"]["test"];
    for (const char* key : {"accuracy", "accuracy_low", "macro_f1", "cross_entropy", "n"})
      EXPECT_EQ(best[key], task[key]) << out << " " << key;
    EXPECT_GT(best["accuracy"].get<double>(), 0.95) << out << all["training"]["held_out"];
    double highest = 0;
    for (const Json& entry : all["training"]["held_out"])
      highest = std::max(highest, entry["accuracy"].get<double>());
    EXPECT_EQ(best["accuracy"].get<double>(), highest) << out;
  }
  const Json config = read_json(folder_->file("full/config.json"));
  EXPECT_EQ(config["architectures"], Json({"BertForSequenceClassification"}));
  EXPECT_EQ(config["id2label"], (Json{{"0", "lost_card"}, {"1", "money"}, {"2", "new_card"}}));
  EXPECT_EQ(config["label2id"]["money"], 1);
  // Frozen layers stay as they were.
  const auto base = Model::open(folder_->file("mlm")), upper = Model::open(folder_->file("upper"));
  std::vector<float> a(32 * 32), b(a);
  base->read_rows("blk.1.attn_q.weight", 0, 32, a.data());
  upper->read_rows("blk.1.attn_q.weight", 0, 32, b.data());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 0.004 * std::abs(a[i]));  // bf16
}

// Texts below all that is trained run once; the results are those of running them each time.
TEST_F(EncoderTraining, KeptStatesOfTextsGiveTheSameBytes) {
  const Options upper{{"--train-layers", "last:1"}, {"--steps", "40"}, {"--batch", "20"}};
  Options again = upper;
  again["--recompute-frozen"] = "";
  run(finetuning("kept", upper), "kept");
  run(finetuning("again", again), "again");
  EXPECT_TRUE(weights("kept") == weights("again"));
}

TEST_F(EncoderTraining, AStudentOfFewerLayersLearnsFromItsTeacher) {
  const Json report = run(pretraining("student", {{"--student", "layers:2"},
                                                  {"--teacher", folder_->file("mlm")},
                                                  {"--tokenizer", folder_->file("mlm")},
                                                  {"--temperature", "2"},
                                                  {"--loss",
                                                   "forward_kl:5,cross_entropy:2,"
                                                   "cosine_hidden(layers=1:2):1"},
                                                  {"--lr", "0.002"},
                                                  {"--eval-text", folder_->file("held.jsonl")},
                                                  {"--eval-every", "20"}}),
                          "student");
  const Json held_out = report["training"]["held_out"];
  EXPECT_LT(held_out.back()["against"]["kld_mean"].get<double>(),
            held_out[0]["against"]["kld_mean"].get<double>());
  EXPECT_EQ(report["training"]["final_losses"].size(), 2u);
  const Json again = eval({folder_->file("student"), "--text", folder_->file("held.jsonl"),
                           "--context", "32", "--against", folder_->file("mlm")});
  EXPECT_EQ(report["evaluation"]["against"]["kld_mean"], again["against"]["kld_mean"]);

  // The same of a classifier.
  run(finetuning("teacher", {{"--full", ""}}), "teacher");
  const auto distil = [&](const std::string& out, const Options& changes) {
    Options options{{"--student", "layers:1"},
                    {"--teacher", folder_->file("teacher")},
                    {"--temperature", "2"},
                    {"--loss", "forward_kl"},
                    {"--ce-weight", "0.3"},
                    {"--data", folder_->file("train.jsonl")},
                    {"--tokenizer", folder_->file("teacher")},
                    {"--context", "20"},
                    {"--eval-text", folder_->file("test.jsonl")}};
    for (const auto& [name, value] : changes) options[name] = value;
    return pretraining(out, options);
  };
  const Json small = run(distil("small", {}), "small");
  EXPECT_GT(small["evaluation"]["accuracy"].get<double>(), 0.95);
  EXPECT_EQ(read_json(folder_->file("small/config.json"))["num_hidden_layers"], 1);

  const auto other = run_slmc(distil("other", {{"--student", folder_->file("mlm")}}));
  EXPECT_EQ(other.exit_code, 0) << other.err;  // A head with the teacher's classes.
  const auto masked = run_slmc(distil("none", {{"--teacher", folder_->file("mlm")}}));
  EXPECT_EQ(masked.exit_code, 4);
  EXPECT_NE(masked.err.find("guesses masked tokens"), std::string::npos) << masked.err;
}

TEST_F(EncoderTraining, LabelsThatDifferAreRefused) {
  run(finetuning("classifier", {{"--full", ""}, {"--steps", "2"}}), "classifier");
  const auto refused = [&](std::vector<std::string> command, int code, const std::string& part) {
    const auto result = run_slmc(command);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  };
  folder_->write("unknown.jsonl",
                 questions(5, 1, true) + R"({"text": "go", "label": "lost_cart"})");
  const Options full{{"--full", ""}};
  auto more = finetuning("none", {{"--full", ""}, {"--data", folder_->file("unknown.jsonl")}});
  more[1] = folder_->file("classifier");
  refused(more, 3, "unknown.jsonl:6: label 'lost_cart' is none of the 3 classes; did you mean");
  auto held = finetuning("none", {{"--full", ""}, {"--eval-text", folder_->file("unknown.jsonl")}});
  refused(held, 3, "unknown.jsonl:6");
  refused({"eval", folder_->file("classifier"), "--tasks", folder_->file("unknown.jsonl"), "-q"}, 3,
          "is none of the model's 3 classes");
  refused(finetuning("none"), 4, "--merge, or --full");  // An adapter alone.
  auto text = finetuning("none", {{"--full", ""}, {"--data", folder_->file("text.jsonl")}});
  text[1] = folder_->file("classifier");
  refused(text, 4, "learns from labels");
  refused(finetuning("none.gguf", {{"--full", ""}, {"--data", folder_->file("text.jsonl")}}), 4,
          "no masked-language head");
  folder_->write("empty.jsonl", R"({"text": " ", "label": "money"})");
  refused(finetuning("none", {{"--full", ""}, {"--data", folder_->file("empty.jsonl")}}), 3,
          "empty.jsonl:1: \"text\" is empty");
  // Another order of the labels than the teacher's.
  refused(pretraining("none", {{"--student", "layers:1"},
                               {"--teacher", folder_->file("classifier")},
                               {"--tokenizer", folder_->file("classifier")},
                               {"--loss", "forward_kl"},
                               {"--data", folder_->file("train.jsonl")},
                               {"--labels", "new_card money lost_card"}}),
          4, "class 0 is 'lost_card' of the teacher and 'new_card' of the student");
  // A decoder has no head for classes.
  test::write_tiny_model(folder_->file("decoder"));
  auto decoder = finetuning("none");
  decoder[1] = folder_->file("decoder");
  refused(decoder, 4, "are for encoders");
  refused({"capture", folder_->file("mlm"), "--data", folder_->file("text.jsonl"), "-o",
           folder_->file("none"), "--context", "32", "-q"},
          4, "this is an encoder");
}

TEST_F(EncoderTraining, LabelsAsAskedForReplaceTheHead) {
  run(finetuning(
          "named",
          {{"--full", ""}, {"--labels", "money new_card lost_card other"}, {"--steps", "2"}}),
      "named");
  const auto model = Model::open(folder_->file("named"));
  EXPECT_EQ(model->arch().classes, 4);
  EXPECT_EQ(model->config()["id2label"]["3"], "other");
  EXPECT_EQ(model->config()["label2id"]["money"], 0);
}

TEST_F(EncoderTraining, TooLongTextsAreCutAndCounted) {
  const Json report =
      run(finetuning("cut", {{"--full", ""}, {"--context", "6"}, {"--steps", "2"}}), "cut");
  EXPECT_EQ(report["data"]["cut_documents"], 300);  // Seven tokens each.
  EXPECT_EQ(report["data"]["tokens"], 1800);
}

// Dividing a step differently sums in another order only.
TEST_F(EncoderTraining, StepsAreTheSameHoweverTheyAreDivided) {
  const Options base{{"--full", ""}, {"--steps", "3"}, {"--save-dtype", "f32"}};
  Options divided = base;
  divided.insert({{"--micro-batch", "3"}, {"--lanes", "2"}});
  const double one = run(finetuning("one", base), "one")["training"]["final_loss"],
               parts = run(finetuning("parts", divided), "parts")["training"]["final_loss"];
  EXPECT_NEAR(one, parts, 2e-5);
}

}  // namespace
}  // namespace slmc
