// Fine-tuning as a user runs it: what is written, what it is worth, and that the figure is the
// file's.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "compress/core/json.h"
#include "formats/lora.h"
#include "tests/support/tiny_model.h"
#include "tests/support/training_run.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using test::kill_and_resume;
using test::Options;
using test::run_slmc;

class Finetune : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("model"), {.layers = 3, .context = 64});
    const std::string text = test::text_by_rule(3000);
    folder_.write("text.txt", text);
    folder_.write("held.txt", text.substr(0, 3000));
  }
  std::vector<std::string> arguments(const std::string& out, const Options& changes = {}) const {
    const Options options{{"--data", folder_.file("text.txt")},
                          {"-o", folder_.file(out)},
                          {"--context", "32"},
                          {"--batch", "8"},
                          {"--steps", "20"},
                          {"--lr", "0.01"},
                          {"--seed", "5"},
                          {"-q", ""}};
    const auto model = changes.find("MODEL");
    Options others = changes;
    others.erase("MODEL");
    return test::command_line(
        {"finetune", folder_.file(model != changes.end() ? model->second : "model")}, options,
        others);
  }
  Json run(const std::string& out, const Options& changes = {}) const {
    const auto result = run_slmc(arguments(out, changes));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const bool file = out.ends_with(".gguf");
    const std::string report =
        folder_.file(file ? out + ".report.json" : out + "/slmc_report.json");
    return result.exit_code == 0 ? read_json(report) : Json();
  }
  Json eval(std::vector<std::string> model, const std::string& tokens = "4096") const {
    std::vector<std::string> all{"eval"};
    all.insert(all.end(), model.begin(), model.end());
    for (const std::string& more :
         {std::string("--text"), folder_.file("held.txt"), std::string("--context"),
          std::string("32"), std::string("--max-tokens"), tokens, std::string("--activations"),
          std::string("f32"), std::string("--json"), std::string("-"), std::string("-q")})
      all.push_back(more);
    const auto result = run_slmc(all);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "eval");
  }
  std::string bytes(const std::string& path) const { return test::slurp(folder_.file(path)); }

  test::TemporaryFolder folder_;
};

// The last figure of training is what slmc eval says of the written file, digit for digit.
TEST_F(Finetune, TheFigureInTrainingIsTheFilesFigure) {
  const std::map<std::string, std::string> measured{{"--eval-text", folder_.file("held.txt")},
                                                    {"--eval-every", "10"}};
  struct Case {
    std::string out;
    std::map<std::string, std::string> options;
    std::vector<std::string> model;
  };
  const std::vector<Case> cases{
      {"adapter", {}, {folder_.file("model"), "--adapter", folder_.file("adapter")}},
      {"merged", {{"--merge", ""}}, {folder_.file("merged")}},
      {"full", {{"--full", ""}, {"--lr", "0.001"}}, {folder_.file("full")}},
      {"q.gguf", {{"--merge", ""}, {"--quantize", "q8_0"}}, {folder_.file("q.gguf")}},
      {"taught",
       {{"--full", ""}, {"--lr", "0.001"}, {"--teacher", folder_.file("model")}},
       {folder_.file("taught"), "--against", folder_.file("model")}}};
  for (const Case& each : cases) {
    std::map<std::string, std::string> options = measured;
    options.insert(each.options.begin(), each.options.end());
    const Json report = run(each.out, options);
    const Json held_out = report["training"]["held_out"];
    ASSERT_EQ(held_out.size(), 2u) << each.out;
    const Json best = report["evaluation"], again = eval(each.model);
    EXPECT_EQ(best["step"], report["training"]["exported_step"]);
    for (const char* key : {"perplexity", "perplexity_se", "tokens", "context", "protocol"})
      EXPECT_EQ(best[key], again[key]) << each.out << " " << key;
    if (again.contains("against")) {
      for (const char* key : {"kld_mean", "kld_max", "top1_agreement", "perplexity"})
        EXPECT_EQ(best["against"][key], again["against"][key]) << each.out << " " << key;
    }
    const Json before = eval({folder_.file("model")});
    if (each.out != "taught") {  // There the teacher is the model itself.
      EXPECT_LT(best["perplexity"].get<double>(), 0.9 * before["perplexity"].get<double>())
          << each.out;
    }
  }
}

TEST_F(Finetune, KilledAndResumedWritesTheSameAdapter) {
  const Options options{{"--lora", "r=4,alpha=8,dropout=0.2"},
                        {"--eval-text", folder_.file("held.txt")},
                        {"--eval-every", "5"}};
  auto changed = options;
  changed["--threads"] = "2";
  run("whole", changed);
  changed = options;
  changed["--threads"] = "1";
  const auto resumed = kill_and_resume(arguments("killed", changed), folder_.file("killed"));
  ASSERT_EQ(resumed.exit_code, 0);
  EXPECT_TRUE(bytes("whole/adapter_model.safetensors") ==
              bytes("killed/adapter_model.safetensors"));
  const Json a = read_json(folder_.file("whole/slmc_report.json")),
             b = read_json(folder_.file("killed/slmc_report.json"));
  EXPECT_EQ(a["training"]["held_out"], b["training"]["held_out"]);
}

TEST_F(Finetune, StopsWhenNothingGetsBetter) {
  const Json report = run("out", {{"--lr", "0"},
                                  {"--steps", "60"},
                                  {"--eval-text", folder_.file("held.txt")},
                                  {"--eval-every", "2"},
                                  {"--patience", "3"}});
  const Json& training = report["training"];
  EXPECT_TRUE(training["stopped_early"].get<bool>());
  EXPECT_EQ(training["steps"], 8);
  EXPECT_EQ(training["exported_step"], 2);
  for (const std::string& name : folder_.names()) {
    EXPECT_EQ(name.find("candidate"), std::string::npos);
    EXPECT_EQ(name.find("best"), std::string::npos);
  }
}

// At a rate that is far too high the last is not the best.
TEST_F(Finetune, TheBestIsWritten) {
  const Json report = run("out", {{"--full", ""},
                                  {"--lr", "0.1"},
                                  {"--schedule", "constant"},
                                  {"--eval-text", folder_.file("held.txt")},
                                  {"--eval-every", "2"}});
  double best = 1e300;
  int64_t step = 0;
  for (const Json& entry : report["training"]["held_out"]) {
    if (!entry["perplexity"].is_number() || entry["perplexity"].get<double>() >= best) continue;
    best = entry["perplexity"].get<double>();
    step = entry["step"].get<int64_t>();
  }
  EXPECT_EQ(report["training"]["exported_step"], step);
  EXPECT_EQ(eval({folder_.file("out")})["perplexity"].get<double>(), best);
}

TEST_F(Finetune, AnAdapterIsContinuedAndConvertsWithItsModel) {
  run("first", {{"--lora", "r=4"}, {"--lr", "0"}});
  // With rate 0 the adapter does nothing yet, and going on from it writes the same.
  run("second", {{"--init-adapter", folder_.file("first")}, {"--lr", "0"}});
  EXPECT_TRUE(bytes("first/adapter_model.safetensors") ==
              bytes("second/adapter_model.safetensors"));
  run("third", {{"--init-adapter", folder_.file("first")}});
  EXPECT_FALSE(bytes("first/adapter_model.safetensors") ==
               bytes("third/adapter_model.safetensors"));
  run("adapter.gguf", {{"--init-adapter", folder_.file("third")}, {"--lr", "0"}});
  const auto model = Model::open(folder_.file("model"));
  const LoraAdapter a = read_lora(folder_.file("third"), model->arch()),
                    b = read_lora(folder_.file("adapter.gguf"), model->arch());
  for (const LoraTarget& target : a.lora.targets) {
    std::vector<float> x(static_cast<size_t>(a.values->view(target.b()).elements())), y = x;
    decode_rows(a.values->view(target.b()), 0, target.all_rows(), x.data());
    decode_rows(b.values->view(target.b()), 0, target.all_rows(), y.data());
    EXPECT_EQ(x, y) << target.module;
  }
  // Merging later gives the bytes of merging at once.
  ASSERT_EQ(run_slmc({"convert", folder_.file("model"), "--adapter", folder_.file("third"), "-o",
                      folder_.file("later"), "--dtype", "f32", "-q"})
                .exit_code,
            0);
  run("merged", {{"--init-adapter", folder_.file("third")},
                 {"--lr", "0"},
                 {"--merge", ""},
                 {"--save-dtype", "f32"}});
  const auto later = Model::open(folder_.file("later")),
             merged = Model::open(folder_.file("merged"));
  for (const TensorInfo& info : later->tensors())
    EXPECT_EQ(later->tensor_hash(info.name), merged->tensor_hash(info.name)) << info.name;
  // So does merging in memory, for generation and for tasks.
  test::spit(folder_.file("t.jsonl"), R"({"prompt": "ab", "answer": "c"})"
                                      "\n");
  const auto said = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "generate");
    arguments.insert(arguments.end(), {"-p", "ab", "-n", "12", "--activations", "f32"});
    const auto result = run_slmc(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  };
  const std::vector<std::string> adapted{folder_.file("model"), "--adapter", folder_.file("third")};
  EXPECT_EQ(said(adapted), said({folder_.file("later")}));
  EXPECT_NE(said(adapted), said({folder_.file("model")}));
  std::vector<std::string> tasks = adapted;
  tasks.insert(tasks.begin(), "eval");
  tasks.insert(tasks.end(), {"--tasks", folder_.file("t.jsonl"), "-q"});
  EXPECT_EQ(run_slmc(tasks).exit_code, 0);
}

TEST_F(Finetune, AQuantizedBaseStaysAsItIsUnlessAskedOtherwise) {
  ASSERT_EQ(run_slmc({"quantize", folder_.file("model"), "-o", folder_.file("q.gguf"), "--scheme",
                      "q4_0", "-q"})
                .exit_code,
            0);
  const std::map<std::string, std::string> base{{"MODEL", "q.gguf"},
                                                {"--eval-text", folder_.file("held.txt")}};
  const Json report = run("adapter", base);
  const Json again = eval({folder_.file("q.gguf"), "--adapter", folder_.file("adapter")});
  EXPECT_EQ(report["evaluation"]["perplexity"], again["perplexity"]);
  auto merged = base;
  merged["--merge"] = "";
  const auto refused = run_slmc(arguments("merged", merged));
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_NE(refused.err.find("--dequantize"), std::string::npos) << refused.err;
  merged["--dequantize"] = "";
  EXPECT_TRUE(run("merged", merged)["dequantized"].get<bool>());
  auto full = base;
  full["--full"] = "";
  EXPECT_EQ(run_slmc(arguments("full", full)).exit_code, 4);
}

TEST_F(Finetune, UpperLayersAloneChange) {
  run("out", {{"--train-layers", "last:1"}, {"--save-dtype", "f32"}});
  const auto before = Model::open(folder_.file("model")), after = Model::open(folder_.file("out"));
  for (const TensorInfo& info : after->tensors()) {
    const bool upper = info.name.starts_with("blk.2.") || info.name.starts_with("output");
    EXPECT_EQ(before->tensor_hash(info.name) != after->tensor_hash(info.name), upper) << info.name;
  }
}

// Several epochs over a few windows: what the frozen layers gave the first time is read again.
TEST_F(Finetune, KeptStatesOfFrozenLayersGiveTheSameBits) {
  folder_.write("text.txt", test::slurp(folder_.file("text.txt")).substr(0, 2000));
  for (const char* const method : {"--lora", "--save-dtype"}) {
    SCOPED_TRACE(method);
    Options options{{"--train-layers", "last:1"}, {"--save-dtype", "f32"}};
    if (std::string(method) == "--lora") options.insert({{"--lora", "r=4"}, {"--merge", ""}});
    auto dry = options;
    dry["--dry-run"] = "";
    EXPECT_NE(run_slmc(arguments("kept", dry)).out.find("kept beside the output"),
              std::string::npos);
    dry["--dry-run=measured"] = "";
    dry.erase("--dry-run");
    EXPECT_EQ(run_slmc(arguments("new/kept", dry)).exit_code, 0);
    EXPECT_FALSE(fs::exists(folder_.file("new")));
    run("kept", options);
    auto again = options;
    again["--recompute-frozen"] = "";
    run("again", again);
    EXPECT_EQ(test::slurp(folder_.file("kept/model.safetensors")),
              test::slurp(folder_.file("again/model.safetensors")));
    fs::remove_all(folder_.file("kept"));
    fs::remove_all(folder_.file("again"));
  }
}

TEST_F(Finetune, ErrorsSayWhatToDo) {
  const auto refused = [&](const Options& changes) {
    auto all = changes;
    all["--dry-run"] = "";
    const auto result = run_slmc(arguments("out", all));
    EXPECT_NE(result.exit_code, 0);
    return result.err;
  };
  EXPECT_NE(refused({{"--lora", "rank=4"}}).find("no key 'rank'"), std::string::npos);
  EXPECT_NE(refused({{"--lora", "targets=q_prj"}}).find("did you mean 'q_proj'"),
            std::string::npos);
  EXPECT_NE(refused({{"--lora", "r=0"}}).find("from 1"), std::string::npos);
  EXPECT_NE(refused({{"--train-layers", "last:4"}}).find("from 1 to 3"), std::string::npos);
  EXPECT_NE(refused({{"--full", ""}, {"--merge", ""}}).find("merge"), std::string::npos);
  EXPECT_NE(refused({{"--recompute-frozen", ""}}).find("--train-layers"), std::string::npos);
  EXPECT_NE(refused({{"--quantize", "q8_0"}}).find("--merge"), std::string::npos);
  EXPECT_NE(refused({{"--patience", "2"}}).find("--eval-every"), std::string::npos);
  EXPECT_NE(refused({{"--keep-sparsity", ""}, {"--lora", "dropout=0.1"}, {"--merge", ""}})
                .find("dropout"),
            std::string::npos);
  EXPECT_NE(refused({{"--keep-sparsity", ""}}).find("--merge"), std::string::npos);
  run("adapter", {{"--steps", "1"}});
  EXPECT_NE(refused({{"--init-adapter", folder_.file("adapter")}, {"--train-layers", "last:1"}})
                .find("--init-adapter"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc
