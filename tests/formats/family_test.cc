#include "formats/family.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "compress/core/error.h"
#include "formats/gguf.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;

Architecture read(const Json& config) {
  return family_for_config(config, "config.json").from_config(config, "config.json");
}

std::string refusal(const Json& config) {
  return error_of([&] { read(config); });
}

Json llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"vocab_size", 100}};
}

// The defaults are those of transformers' LlamaConfig and Qwen2Config.
TEST(Config, AbsentKeysTakeTheClassDefaults) {
  const Architecture a = read({{"architectures", {"LlamaForCausalLM"}}});
  EXPECT_EQ(
      std::tuple(a.vocab, a.hidden, a.ffn, a.layers, a.heads, a.kv_heads, a.head_dim, a.context),
      std::tuple(32000, 4096, 11008, 32, 32, 32, 128, 2048));
  EXPECT_EQ(std::tuple(a.norm_eps, a.tied, a.bos, a.eos, a.rope.theta, a.qkv_bias),
            std::tuple(1e-6, false, 1, 2, 10000.0, false));
  const Architecture q = read({{"model_type", "qwen2"}});
  EXPECT_EQ(std::tuple(q.vocab, q.hidden, q.ffn, q.layers, q.heads, q.kv_heads, q.context),
            std::tuple(151936, 4096, 22016, 32, 32, 32, 32768));
  EXPECT_TRUE(q.qkv_bias);
  EXPECT_FALSE(q.output_bias);
  EXPECT_EQ(q.bos, -1);
}

TEST(Config, BothSpellingsOfTheRotarySettingsMeanTheSame) {
  Json older = llama(), newer = llama();
  const Json settings = {{"rope_type", "llama3"},
                         {"factor", 8.0},
                         {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0},
                         {"original_max_position_embeddings", 8192}};
  older["rope_theta"] = 500000.0;
  older["rope_scaling"] = settings;
  newer["rope_parameters"] = settings;
  newer["rope_parameters"]["rope_theta"] = 500000.0;
  EXPECT_EQ(architecture_difference(read(older), read(newer)), "");
  EXPECT_EQ(read(newer).rope.theta, 500000.0);
  EXPECT_EQ(read(older).rope.original_context, 8192);
  older["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(read(older).rope.scaling, RopeScaling::kLinear);
}

TEST(Config, WhatChangesTheArithmeticAndIsNotThereIsRefusedByName) {
  const auto with = [](const char* key, const Json& value) {
    Json config = llama();
    config[key] = value;
    return refusal(config);
  };
  EXPECT_NE(with("hidden_act", "gelu").find("hidden_act \"gelu\""), std::string::npos);
  EXPECT_NE(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}).find("\"yarn\""),
            std::string::npos);
  EXPECT_NE(with("rope_parameters", {{"rope_type", "longrope"}}).find("\"longrope\""),
            std::string::npos);
  EXPECT_NE(with("rope_parameters", {{"full_attention", {{"rope_type", "default"}}}})
                .find("each kind of layer"),
            std::string::npos);
  EXPECT_NE(with("partial_rotary_factor", 0.5).find("partial_rotary_factor"), std::string::npos);
  EXPECT_NE(with("quantization_config", {{"bits", 4}}).find("quantization_config"),
            std::string::npos);
  EXPECT_NE(with("architectures", {"LlamaForSequenceClassification"})
                .find("LlamaForSequenceClassification"),
            std::string::npos);
  EXPECT_EQ(with("pretraining_tp", 2), "");
  EXPECT_EQ(with("hidden_act", "swish"), "");
  EXPECT_NE(
      refusal({{"model_type", "qwen2"}, {"use_sliding_window", true}}).find("use_sliding_window"),
      std::string::npos);
  EXPECT_NE(refusal({{"model_type", "qwen2"}, {"layer_types", {"sliding_attention"}}})
                .find("layer_types"),
            std::string::npos);
}

TEST(Config, NonsenseIsABadInput) {
  const auto with = [](const char* key, const Json& value) {
    Json config = llama();
    config[key] = value;
    try {
      read(config);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << error.what();
      return std::string(error.what());
    }
    return std::string();
  };
  for (const Json& value :
       {Json(0), Json(-3), Json(1.5), Json("64"), Json(~uint64_t{0}), Json::array()}) {
    EXPECT_NE(with("hidden_size", value).find("config.json: hidden_size: expected a whole number"),
              std::string::npos)
        << value;
  }
  EXPECT_NE(with("num_key_value_heads", 3).find("not a multiple"), std::string::npos);
  EXPECT_NE(with("head_dim", 7).find("odd"), std::string::npos);
  EXPECT_NE(with("hidden_size", 66).find("not a multiple"), std::string::npos);
  EXPECT_NE(with("rms_norm_eps", 0).find("positive"), std::string::npos);
  EXPECT_NE(with("tie_word_embeddings", "yes").find("true or false"), std::string::npos);
  EXPECT_NE(with("rope_scaling", {{"rope_type", "linear"}}).find("factor is missing"),
            std::string::npos);
  EXPECT_NE(with("rope_scaling", 4).find("expected an object"), std::string::npos);
  EXPECT_NE(with("bos_token_id", "a").find("token id"), std::string::npos);
}

TEST(Config, WritingKeepsOtherKeysAndTheSpelling) {
  Json config = llama();
  config["transformers_version"] = "5";
  config["eos_token_id"] = {2, 7};
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1000.0}};
  Architecture arch = read(config);
  arch.layers = 1;
  arch.ffn = 32;
  const Json written = family_by_name("llama").to_config(arch, config);
  EXPECT_EQ(written["transformers_version"], "5");
  EXPECT_EQ(written["eos_token_id"], Json({2, 7}));
  EXPECT_EQ(written["num_hidden_layers"], 1);
  EXPECT_EQ(written["rope_parameters"]["rope_theta"], 1000.0);
  EXPECT_FALSE(written.contains("rope_theta"));
  EXPECT_EQ(architecture_difference(read(written), arch), "");
}

// Every family there is, also those added later.
TEST(Families, NameTheirTensorsOnceAndSurviveBothContainers) {
  for (const Family* family : families()) {
    SCOPED_TRACE(family->name);
    Json config = llama();
    config["architectures"] = {family->hf_architectures.at(0)};
    config["num_key_value_heads"] = 2;
    for (const bool tied : {false, true}) {
      config["tie_word_embeddings"] = tied;
      const Architecture arch = family->from_config(config, "config.json");
      EXPECT_EQ(arch.family, family->name);
      std::set<std::string> names, hf_names;
      GgufFile file;
      for (const TensorSpec& spec : family->tensors(arch)) {
        EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
        EXPECT_TRUE(hf_names.insert(spec.hf_name).second) << spec.hf_name;
        if (spec.gguf_rows == GgufRows::kRopePairs) {
          EXPECT_EQ(spec.shape[0] % (2 * spec.heads), 0) << spec.name;
        }
        file.tensors.push_back({spec.name, DType::kF32, spec.shape, 0, 0});
      }
      EXPECT_EQ(names.count("output.weight"), tied ? 0u : 1u);
      EXPECT_EQ(
          architecture_difference(
              family->from_config(family->to_config(arch, Json::object()), "config.json"), arch),
          "");
      family->to_gguf(arch, file.keys);
      EXPECT_EQ(architecture_difference(family->from_gguf(file, "x.gguf"), arch), "");
    }
  }
}

TEST(Families, AnUnknownOneNamesTheNearest) {
  EXPECT_NE(error_of([] { family_by_name("lama"); }).find("did you mean 'llama'"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc
