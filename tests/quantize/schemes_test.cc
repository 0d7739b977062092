// Properties that every scheme and method keeps; a new file under quantize/schemes or
// quantize/methods is swept without an edit here.
#include <cmath>
#include <filesystem>
#include <set>

#include "formats/block_codec.h"
#include "formats/compressed_tensors.h"
#include "formats/gguf.h"
#include "quantize/method.h"
#include "quantize/scheme.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

/// Largest relative error (root of summed squares) that a type of so many bits may leave on weights
/// without outliers: for blocks, four times the step of a uniform grid of that many levels; for
/// floats, half a unit in the last place of bf16.
double error_bound(DType type) {
  if (type == DType::kF32) return 0.0;
  if (dtype_is_float(type)) return std::ldexp(1.0, -9);
  const double bits =
      8.0 * static_cast<double>(dtype_block_bytes(type)) / static_cast<double>(dtype_block(type));
  return std::exp2(2.0 - bits + (bits < 3 ? 0.2 : 0.0));
}

std::vector<TinyModel> tiny_models() {
  return {{.family = "llama", .hidden = 256, .ffn = 256, .tied = true, .dtype = DType::kBF16},
          {.family = "llama",
           .tied = false,
           .attention_bias = true,
           .mlp_bias = true,
           .dtype = DType::kF32},
          {.family = "llama", .dtype = DType::kBF16, .unaligned = true},
          {.family = "qwen2",
           .hidden = 128,
           .ffn = 256,
           .tied = true,
           .dtype = DType::kF16,
           .shards = 2}};
}

/// One run: the plan writes nothing, and the file, its figures and its report are what it says.
void expect_quantized_as_planned(const Scheme& scheme, const Method& method,
                                 const std::string& source, const std::string& output,
                                 const TemporaryFolder& folder) {
  QuantizeStage stage = quantize_stage(source, output, scheme.name);
  set_method(stage, method, folder, 200);
  const bool learned = needs_calibration(method) || method.smooth != nullptr;
  const Plan plan = stage.plan({});
  EXPECT_FALSE(std::filesystem::exists(output)) << "a plan writes nothing";
  Context context;
  const Report report = stage.run(plan, context);
  const auto written = Model::open(output);
  EXPECT_EQ(std::filesystem::file_size(output), plan.output_bytes);
  EXPECT_EQ("", architecture_difference(Model::open(source)->arch(), written->arch()));
  ASSERT_EQ(written->tensors().size(), plan.rows.size());
  for (const PlanRow& row : plan.rows) {
    const TensorInfo& info = written->info(row.tensor);
    EXPECT_EQ(dtype_name(info.dtype), row.to) << row.tensor;
    EXPECT_FALSE(row.reason.empty());
    const int64_t blocks = element_count(info.shape) / dtype_block(info.dtype);
    EXPECT_EQ(row.bytes_after, static_cast<uint64_t>(blocks * dtype_block_bytes(info.dtype)))
        << row.tensor;
    EXPECT_EQ(info.bytes, row.bytes_after);
    if (info.shape.size() < 2) {
      EXPECT_EQ(info.dtype, DType::kF32) << row.tensor;
    }
  }
  for (const Json& tensor : report.at("tensors")) {
    const DType type = dtype_from_name(tensor.at("to").get<std::string>());
    // Error feedback trades errors of weights for errors of outputs, and later layers make good
    // what earlier ones lost.
    const double slack = needs_statistic(method, Statistic::kHessian) ? 8 : 1;
    EXPECT_LE(tensor.at("relative_error").get<double>(), slack * error_bound(type))
        << tensor.dump();
    const bool rounded = learned && (dtype_is_float(type) || tensor.contains("note"));
    EXPECT_EQ(tensor.at("method_used"), rounded ? "nearest" : method.name);
  }
  if (learned) {
    EXPECT_EQ(report.at("cost").at("text"), "calibration");
  } else {
    EXPECT_EQ(report.at("cost"), "not measured");
  }
}

// Every scheme with every method, and either with every model: all pairs, not all triples.
TEST(Schemes, QuantizeEveryFamilyToWhatThePlanSays) {
  TemporaryFolder folder;
  const std::vector<TinyModel> models = tiny_models();
  for (size_t m = 0; m < models.size(); ++m)
    write_tiny_model(folder.file("model-" + std::to_string(m)), models[m]);
  for (size_t s = 0; s < schemes().size(); ++s) {
    if (is_group_type(schemes()[s]->type)) continue;  // No GGUF can hold them.
    for (size_t m = 0; m < methods().size(); ++m) {
      const std::string model = "model-" + std::to_string((s + m) % models.size());
      const std::string what = schemes()[s]->name + "-" + methods()[m]->name + "-" + model;
      SCOPED_TRACE(what);
      expect_quantized_as_planned(*schemes()[s], *methods()[m], folder.file(model),
                                  folder.file(what + ".gguf"), folder);
    }
  }
}

// A GGUF holds q, k and v of these families as one tensor, which has one type: the one that
// llama.cpp's mixes give attn_qkv.
TEST(Schemes, GiveThePartsOfAFusedTensorOneType) {
  for (const char* name : {"phi3_short", "gpt2"}) {
    TemporaryFolder folder;
    const std::string model = std::string(SLMC_FIXTURES "/models/") + name;
    QuantizeStage stage = quantize_stage(model, folder.file("out.gguf"), "q4_k_m");
    const Report report = quantize(stage, {});
    const auto written = Model::open(folder.file("out.gguf"));
    for (int64_t layer = 0; layer < written->arch().layers; ++layer) {
      const std::string block = "blk." + std::to_string(layer) + ".";
      EXPECT_EQ(written->info(block + "attn_q.weight").dtype,
                written->info(block + "attn_v.weight").dtype)
          << name;
    }
  }
}

/// Rules that give the matrices `parts` of a model's layers all types that schemes have, in turn.
std::vector<std::string> rules_of_all_types(int64_t layers, const std::vector<std::string>& parts) {
  std::set<std::string> types;
  for (const Scheme* scheme : schemes()) {
    if (!is_group_type(scheme->type)) types.insert(std::string(dtype_name(scheme->type)));
  }
  std::vector<std::string> rules;
  auto type = types.begin();
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const std::string& part : parts) {
      rules.push_back("blk\\." + std::to_string(layer) + "\\." + part + "\\.=" + *type);
      if (++type == types.end()) type = types.begin();
    }
  }
  EXPECT_GE(rules.size(), types.size());
  return rules;
}

TEST(Schemes, WriteTheSameBytesOnAnyNumberOfThreads) {
  TemporaryFolder folder;
  // An embedding of more than one chunk for streaming, so that threads share a tensor too;
  // calibrated methods share rows, of which a small model has enough.
  const std::vector<std::string> parts = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                          "ffn_gate", "ffn_up", "ffn_down"};
  TinyModel tiny = {.layers = 3, .hidden = 256, .ffn = 256, .dtype = DType::kBF16};
  write_tiny_model(folder.file("small"), tiny);
  tiny.vocab = 4500;
  write_tiny_model(folder.file("large"), tiny);
  for (const Method* method : methods()) {
    const bool learned = needs_calibration(*method) || method->smooth != nullptr;
    std::string first;
    Json figures;
    for (const int count : {1, 2, 7}) {
      SCOPED_TRACE(method->name + " on " + std::to_string(count) + " threads");
      set_threads(count);
      const std::string output = folder.file("out.gguf");
      QuantizeStage stage =
          quantize_stage(folder.file(learned ? "small" : "large"), output, "q4_0");
      stage.options.rule = rules_of_all_types(tiny.layers, parts);
      set_method(stage, *method, folder, 200);
      stage.options.check = "bytes";
      const Report report = quantize(stage, {.force = true});
      const std::string bytes = slurp(output);
      if (first.empty()) first = bytes, figures = report.at("tensors");
      EXPECT_TRUE(first == bytes);
      EXPECT_EQ(figures, report.at("tensors"));
    }
  }
  set_threads(0);
}

TEST(Reference, GivesTheBytesOfTheCodecs) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"),
                   {.layers = 1, .hidden = 256, .ffn = 256, .vocab = 1000, .dtype = DType::kBF16});
  const auto source = Model::open(folder.file("model"));
  for (const Scheme* scheme : schemes()) {
    if (is_group_type(scheme->type)) continue;
    QuantizeStage stage =
        quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme->name);
    stage.options.method = "reference";
    stage.options.check = "bytes";
    quantize(stage, {.force = true});
    const auto written = Model::open(folder.file("out.gguf"));
    for (const TensorInfo& info : written->tensors()) {
      const int64_t n = element_count(info.shape), rows = n / info.shape.back();
      std::vector<float> x(static_cast<size_t>(n));
      source->read_rows(info.name, 0, rows, x.data());
      std::vector<std::byte> expected(info.bytes);
      block_codec(info.dtype).encode(x.data(), n, expected.data());
      const TensorView view = written->view(info.name);
      EXPECT_EQ(0, std::memcmp(expected.data(), view.data, info.bytes))
          << scheme->name << " " << info.name;
    }
  }
}

// The search leaves less error than plain rounding in every tensor of every scheme.
TEST(Nearest, IsNeverWorseThanTheReference) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.layers = 2, .hidden = 256, .ffn = 512, .vocab = 500});
  for (const Scheme* scheme : schemes()) {
    if (is_group_type(scheme->type)) continue;
    std::vector<Json> reports;
    for (const char* method : {"nearest", "reference"}) {
      QuantizeStage stage =
          quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme->name);
      stage.options.method = method;
      stage.options.check = "bytes";
      reports.push_back(quantize(stage, {.force = true}).at("tensors"));
    }
    for (size_t i = 0; i < reports[0].size(); ++i) {
      const double searched = reports[0][i].at("rmse").get<double>(),
                   plain = reports[1][i].at("rmse").get<double>();
      const bool blocks =
          dtype_block(dtype_from_name(reports[0][i].at("to").get<std::string>())) > 1;
      if (blocks) {
        EXPECT_LT(searched, 0.97 * plain) << scheme->name << " " << reports[0][i].dump();
      } else {
        EXPECT_EQ(searched, plain);
      }
    }
  }
}

TEST(Schemes, KeepRowsThatDoNotDivideInF16AndSayWhy) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 80, .ffn = 96});
  for (const Scheme* scheme : schemes()) {
    if (dtype_is_float(scheme->type) || is_group_type(scheme->type)) continue;
    QuantizeStage stage =
        quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme->name);
    const Plan plan = stage.plan({});
    EXPECT_EQ(row_of(plan, "blk.0.ffn_up.weight").to, "f16");
    EXPECT_TRUE(contains(row_of(plan, "blk.0.ffn_up.weight").reason, "rows of 80 do not divide by"))
        << row_of(plan, "blk.0.ffn_up.weight").reason;
    EXPECT_EQ(dtype_block(dtype_from_name(row_of(plan, "blk.0.ffn_down.weight").to)), 32);
    quantize(stage, {.force = true});
  }
}

// llama.cpp's substitutes for rows that divide by 32 but not by 256 (tensor_type_fallback).
TEST(Schemes, SubstituteAsLlamaCppDoes) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 96, .ffn = 160, .tied = false});
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"q2_k", "q4_0"}, {"q3_k_s", "q4_0"},   {"q4_k_m", "q5_0"}, {"q5_k_m", "q5_1"},
      {"q6_k", "q8_0"}, {"iq4_xs", "iq4_nl"}, {"q4_0", "q4_0"}};
  for (const auto& [scheme, type] : expected) {
    const Plan plan =
        quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme).plan({});
    const PlanRow& row = row_of(plan, "blk.0.ffn_up.weight");
    EXPECT_EQ(row.to, type) << scheme;
    EXPECT_EQ(contains(row.reason, "do not divide by 256"), scheme != type) << row.reason;
    const PlanRow& head = row_of(plan, "output.weight");
    EXPECT_EQ(head.to, "q8_0") << scheme;
    EXPECT_TRUE(contains(head.reason, "not q6_k")) << head.reason;
  }
}

TEST(Schemes, KeepTheHeadOrTiedEmbeddingInQ6K) {
  for (const bool tied : {true, false}) {
    TemporaryFolder folder;
    write_tiny_model(folder.file("model"), {.hidden = 256, .tied = tied});
    for (const Scheme* scheme : schemes()) {
      if (is_group_type(scheme->type)) continue;  // No GGUF can hold them.
      if (dtype_is_float(scheme->type)) continue;
      const Plan plan =
          quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme->name).plan({});
      const PlanRow& head = row_of(plan, tied ? "token_embd.weight" : "output.weight");
      EXPECT_EQ(head.to, scheme->name == "q8_0" ? "q8_0" : "q6_k") << scheme->name;
      if (!tied) {
        EXPECT_EQ(row_of(plan, "token_embd.weight").to, dtype_name(scheme->type)) << scheme->name;
      }
    }
  }
}

/// One letter a layer for a part's type under a mix: 'q6_k' is '6', 'iq4_nl' 'n', 'iq4_xs' 'x'.
std::string types_of(const std::string& scheme, const std::string& part, int64_t layers,
                     int64_t heads_per_kv, bool weighted = false) {
  Architecture arch;
  arch.family = "llama";
  arch.layers = layers;
  arch.heads = 8;
  arch.kv_heads = 8 / heads_per_kv;
  std::string letters;
  for (int64_t layer = 0; layer < layers; ++layer) {
    TensorInfo tensor;
    tensor.name = "blk." + std::to_string(layer) + "." + part + ".weight";
    tensor.shape = {256, 256};
    const DType type = choose_type(scheme_by_name(scheme), tensor, arch, weighted).type;
    const std::string name(dtype_name(type));
    letters += name == "iq4_nl" ? 'n' : name == "iq4_xs" ? 'x' : name[1];
  }
  return letters;
}

// Worked out by hand from llama.cpp's table (llama_tensor_get_type, version of the llama-cpp-python
// package 0.3.36) for 16 layers.
TEST(Schemes, GiveEachLayerWhatLlamaCppGivesIt) {
  const std::string half = "6644644644644666";  // 0, 1; then every third from 4; 14, 15.
  EXPECT_EQ(types_of("q4_k_m", "ffn_down", 16, 1), half);
  EXPECT_EQ(types_of("q4_k_m", "attn_v", 16, 4), half);
  EXPECT_EQ(types_of("q5_k_m", "ffn_down", 16, 1), "6655655655655666");
  EXPECT_EQ(types_of("q4_k_m", "attn_k", 16, 1), std::string(16, '4'));
  EXPECT_EQ(types_of("q4_k_m", "attn_output", 16, 1), std::string(16, '4'));
  EXPECT_EQ(types_of("q4_k_s", "ffn_down", 16, 1), "55" + std::string(14, '4'));
  EXPECT_EQ(types_of("q4_k_s", "attn_v", 16, 1), "5555" + std::string(12, '4'));
  EXPECT_EQ(types_of("q3_k_m", "ffn_down", 16, 1), "5" + std::string(15, '4'));
  EXPECT_EQ(types_of("q3_k_m", "attn_v", 16, 1), "55" + std::string(14, '4'));
  EXPECT_EQ(types_of("q3_k_m", "attn_output", 16, 1), std::string(16, '4'));
  EXPECT_EQ(types_of("q3_k_m", "ffn_up", 16, 1), std::string(16, '3'));
  EXPECT_EQ(types_of("q3_k_l", "ffn_down", 16, 1), std::string(16, '5'));
  EXPECT_EQ(types_of("q2_k", "attn_v", 16, 1), std::string(16, '3'));
  EXPECT_EQ(types_of("q2_k", "attn_v", 16, 4), std::string(16, '4'));
  EXPECT_EQ(types_of("q2_k", "ffn_down", 16, 1), std::string(16, '3'));
  EXPECT_EQ(types_of("iq4_xs", "ffn_down", 16, 1), "55" + std::string(14, 'x'));
  EXPECT_EQ(types_of("iq4_xs", "ffn_down", 16, 1, true), std::string(16, 'x'));
  EXPECT_EQ(types_of("iq4_nl", "attn_v", 16, 4), std::string(16, '5'));
  EXPECT_EQ(types_of("q4_0", "ffn_down", 16, 1), std::string(16, '4'));
  // With 80 layers of shared keys and values Llama is the 70B, whose attn_v gets five bits.
  EXPECT_EQ(types_of("q4_k_s", "attn_v", 80, 8), std::string(80, '5'));
}

TEST(Schemes, WriteLlamaCppsNumberOfTheMix) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {});
  for (const auto& [scheme, number] :
       std::vector<std::pair<std::string, uint32_t>>{{"q4_0", 2},
                                                     {"q8_0", 7},
                                                     {"q3_k_l", 13},
                                                     {"q4_k_s", 14},
                                                     {"q4_k_m", 15},
                                                     {"iq4_xs", 30}}) {
    QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme);
    quantize(stage, {.force = true});
    EXPECT_EQ(GgufFile::open(folder.file("out.gguf")).keys.integer("general.file_type", "out"),
              number)
        << scheme;
  }
}

}  // namespace
}  // namespace slmc::test
