#include "formats/family.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

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
  EXPECT_NE(with("hidden_act", "mish").find("hidden_act \"mish\""), std::string::npos);
  EXPECT_NE(with("rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}).find("\"dynamic\""),
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
  EXPECT_NE(refusal({{"model_type", "qwen2"}, {"layer_types", Json(32, "chunked_attention")}})
                .find("layer_types"),
            std::string::npos);
  EXPECT_NE(refusal({{"model_type", "gpt2"}, {"scale_attn_by_inverse_layer_idx", true}})
                .find("scale_attn_by_inverse_layer_idx"),
            std::string::npos);
  EXPECT_NE(refusal({{"model_type", "gemma2"}, {"use_bidirectional_attention", true}})
                .find("use_bidirectional_attention"),
            std::string::npos);
  EXPECT_NE(refusal({{"model_type", "bert"}, {"position_embedding_type", "relative_key"}})
                .find("position_embedding_type"),
            std::string::npos);
  EXPECT_NE(refusal({{"model_type", "mistral"}, {"layer_types", {"a", "b"}}}).find("layer_types"),
            std::string::npos);
  EXPECT_NE(with("num_local_experts", 8).find("num_local_experts"), std::string::npos);
  EXPECT_NE(with("final_logit_softcapping", 30.0).find("final_logit_softcapping"),
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

// What the hub's configurations say, in their own words.
TEST(Config, PublishedModelsAreRead) {
  const auto arch = [](const char* text) { return read(Json::parse(text)); };
  const Architecture mistral = arch(R"({"architectures": ["MistralForCausalLM"],
      "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
      "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
      "sliding_window": 4096, "max_position_embeddings": 32768, "vocab_size": 32000})");
  EXPECT_EQ(std::tuple(mistral.window, mistral.head_dim, mistral.ffn),
            std::tuple(4096, 128, 14336));
  const Architecture phi = arch(R"({"architectures": ["Phi3ForCausalLM"], "hidden_size": 24,
      "num_attention_heads": 4, "original_max_position_embeddings": 4096,
      "max_position_embeddings": 131072, "rope_scaling": {"type": "su",
      "long_factor": [1, 2, 3], "short_factor": [1, 1, 1]}, "sliding_window": 262144})");
  EXPECT_EQ(phi.rope.scaling, RopeScaling::kLongrope);
  EXPECT_NEAR(phi.rope.attention_factor, std::sqrt(1 + std::log(32.0) / std::log(4096.0)), 1e-12);
  const Architecture gemma = arch(R"({"architectures": ["Gemma3ForConditionalGeneration"],
      "eos_token_id": [1, 106], "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
      "model_type": "gemma3_text", "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0,
      "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {}})");
  EXPECT_EQ(std::tuple(gemma.vocab, gemma.heads, gemma.kv_heads, gemma.head_dim, gemma.window),
            std::tuple(262208, 8, 4, 256, 1024));
  EXPECT_EQ(std::tuple(layer_window(gemma, 4), layer_window(gemma, 5)), std::tuple(1024, 0));
  EXPECT_EQ(std::tuple(layer_rope(gemma, 4).theta, layer_rope(gemma, 5).theta,
                       layer_rope(gemma, 5).factor, layer_rope(gemma, 4).factor),
            std::tuple(10000.0, 1000000.0, 8.0, 1.0));
  EXPECT_EQ(gemma.embedding_scale, std::sqrt(2560.0));
  const Architecture gpt = arch(R"({"architectures": ["GPT2LMHeadModel"], "n_ctx": 1024,
      "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257})");
  EXPECT_EQ(std::tuple(gpt.ffn, gpt.tied, gpt.norm_eps), std::tuple(3072, true, 1e-5));
  // SmolLM2, TinyLlama and the distilled DeepSeek-R1 are of the families above.
  EXPECT_EQ(arch(R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 576,
      "intermediate_size": 1536, "num_attention_heads": 9, "num_hidden_layers": 30,
      "num_key_value_heads": 3, "rope_interleaved": false, "rope_scaling": null,
      "rope_theta": 100000, "tie_word_embeddings": true, "vocab_size": 49152})")
                .head_dim,
            64);
  EXPECT_TRUE(arch(R"({"architectures": ["Qwen2ForCausalLM"], "hidden_size": 1536,
      "num_attention_heads": 12, "num_key_value_heads": 2, "sliding_window": 4096,
      "use_mrope": false, "use_sliding_window": false, "max_window_layers": 21})")
                  .qkv_bias);
}

/// A configuration of the family's class with few layers.
Json small_config(const Family& family, const std::string& architecture) {
  Json config = {{"architectures", {architecture}}};
  Architecture arch = family.from_config(config, "config.json");
  arch.layers = 3;
  arch.windowed.resize(std::min<size_t>(arch.windowed.size(), 3));
  return family.to_config(arch, config);
}

void expect_whole_names(const std::vector<TensorSpec>& tensors) {
  std::set<std::string> names;
  for (FilePlace TensorSpec::*container : {&TensorSpec::hf, &TensorSpec::gguf}) {
    std::map<std::string, int64_t> rows, whole;
    for (const TensorSpec& spec : tensors) {
      const FilePlace& place = spec.*container;
      EXPECT_EQ(rows[place.name], place.first_row) << spec.name;
      rows[place.name] += spec.shape[0];
      whole[place.name] = place.rows > 0 ? place.rows : spec.shape[0];
    }
    EXPECT_EQ(rows, whole);
  }
  for (const TensorSpec& spec : tensors) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    if (spec.gguf.order == GgufRows::kRopePairs) {
      EXPECT_EQ(spec.shape[0] % (2 * spec.gguf.heads), 0) << spec.name;
    }
  }
}

// Every family and class there is, also those added later.
TEST(Families, NameTheirTensorsOnceAndSurviveBothContainers) {
  for (const Family* family : families()) {
    for (const std::string& architecture : family->hf_architectures) {
      SCOPED_TRACE(architecture);
      const Json config = small_config(*family, architecture);
      const Architecture arch = family->from_config(config, "config.json");
      EXPECT_EQ(arch.family, family->name);
      EXPECT_EQ(&family_for_config(config, "config.json"), family);
      const std::vector<TensorSpec> tensors = family->tensors(arch);
      expect_whole_names(tensors);
      const Json written = family->to_config(arch, {{"architectures", {architecture}}});
      EXPECT_EQ(architecture_difference(family->from_config(written, "config.json"), arch), "");
      GgufFile file;
      for (const TensorSpec& spec : tensors)
        file.tensors.push_back({spec.gguf.name, DType::kF32, stored_shape(spec, spec.gguf), 0, 0});
      if (!error_of([&] { family->to_gguf(arch, file.keys); }).empty()) continue;
      Architecture read = family_for_gguf(gguf_architecture(*family), "x").from_gguf(file, "x");
      if (family->gguf_notes != nullptr) read.window = arch.window;
      EXPECT_EQ(architecture_difference(read, arch), "");
    }
  }
}

TEST(Families, AnUnknownOneNamesTheNearest) {
  EXPECT_NE(error_of([] { family_by_name("lama"); }).find("did you mean 'llama'"),
            std::string::npos);
  const std::string error = refusal({{"architectures", {"OlmoForCausalLM"}},
                                     {"hidden_size", 64},
                                     {"intermediate_size", 96},
                                     {"num_hidden_layers", 2},
                                     {"num_attention_heads", 4},
                                     {"num_key_value_heads", 4},
                                     {"rope_theta", 10000.0},
                                     {"clip_qkv", 8.0}});
  EXPECT_NE(error.find("OlmoForCausalLM"), std::string::npos);
  EXPECT_NE(error.find("LlamaForCausalLM, from which it differs in clip_qkv"), std::string::npos)
      << error;
}

}  // namespace
}  // namespace slmc
