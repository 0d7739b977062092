// GPT-2: learned positions, LayerNorm and biases everywhere, an FFN without gate, and linear
// weights stored as [in, out] (transformers' Conv1D) with query, key and value in one.
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

/// What every GPT-2 is.
void set_kind(Architecture& arch) {
  arch.norm = NormKind::kLayer;
  arch.gated = false;
  arch.qkv_bias = arch.output_bias = arch.mlp_bias = true;
  arch.learned_positions = true;
  arch.rope = {};
}

Architecture from_config(const Json& config, const std::string& where) {
  if (config_has(config, "quantization_config"))
    throw_unsupported(cat(where, ": quantization_config: give the original checkpoint"));
  for (const char* key : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"})
    config_require(config, key, false, where);
  Architecture arch;
  arch.family = "gpt2";
  set_kind(arch);
  arch.activation = activation_from_config(config, "activation_function", "gelu_new", where);
  arch.layers = config_size(config, "n_layer", 12, where);
  arch.hidden = config_size(config, "n_embd", 768, where);
  arch.ffn = config_size(config, "n_inner", 4 * arch.hidden, where);
  arch.heads = arch.kv_heads = config_size(config, "n_head", 12, where);
  arch.vocab = config_size(config, "vocab_size", 50257, where);
  arch.context = config_size(config, "n_positions", 1024, where);
  arch.norm_eps = config_number(config, "layer_norm_epsilon", 1e-5, where);
  arch.tied = config_boolean(config, "tie_word_embeddings", true, where);
  arch.bos = config_token(config, "bos_token_id", 50256, where);
  arch.eos = config_token(config, "eos_token_id", 50256, where);
  arch.pad = config_token(config, "pad_token_id", -1, where);
  if (arch.hidden % arch.heads != 0) {
    throw_bad_input(
        cat(where, ": n_embd ", arch.hidden, " is not a multiple of n_head ", arch.heads));
  }
  arch.head_dim = arch.hidden / arch.heads;
  if (!config_boolean(config, "scale_attn_weights", true, where)) arch.attention_scale = 1.0;
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  Json config = original.is_object() ? original : Json::object();
  Architecture unscaled = arch;
  unscaled.attention_scale = 0;
  const bool scaled =
      static_cast<float>(query_scale(arch)) == static_cast<float>(query_scale(unscaled));
  if (!scaled && arch.attention_scale != 1.0)
    throw_unsupported("GPT2LMHeadModel cannot have this scale of query-key products");
  if (!config_has(config, "architectures")) config["architectures"] = {"GPT2LMHeadModel"};
  config["model_type"] = "gpt2";
  config["n_layer"] = arch.layers;
  config["n_embd"] = arch.hidden;
  config["n_inner"] = arch.ffn == 4 * arch.hidden ? Json(nullptr) : Json(arch.ffn);
  config["n_head"] = arch.heads;
  config["vocab_size"] = arch.vocab;
  config["n_positions"] = arch.context;
  if (config.contains("n_ctx")) config["n_ctx"] = arch.context;
  config["layer_norm_epsilon"] = arch.norm_eps;
  config["activation_function"] =
      activation_for_config(arch.activation, config, "activation_function");
  if (!scaled || config.contains("scale_attn_weights")) config["scale_attn_weights"] = scaled;
  config["tie_word_embeddings"] = arch.tied;
  write_token(config, "bos_token_id", arch.bos);
  write_token(config, "eos_token_id", arch.eos);
  if (arch.pad >= 0 || config.contains("pad_token_id"))
    write_token(config, "pad_token_id", arch.pad);
  return config;
}

Architecture from_gguf(const GgufFile& file, const std::string& where) {
  Architecture arch = decoder_from_gguf(file, "gpt2", where);
  set_kind(arch);
  arch.activation = Activation::kGeluTanh;
  return arch;
}

const DecoderNames& names() {
  static const DecoderNames all = {.embedding = "transformer.wte",
                                   .layers = "transformer.h.",
                                   .norm = "transformer.ln_f",
                                   .positions = "transformer.wpe",
                                   .parts = {{"attn_norm", "ln_1"},
                                             {"attn_q", "attn.c_attn", "attn_qkv"},
                                             {"attn_k", "attn.c_attn", "attn_qkv"},
                                             {"attn_v", "attn.c_attn", "attn_qkv"},
                                             {"attn_output", "attn.c_proj"},
                                             {"ffn_norm", "ln_2"},
                                             {"ffn_up", "mlp.c_fc"},
                                             {"ffn_down", "mlp.c_proj"}},
                                   .conv1d = true};
  return all;
}

/// The first checkpoints leave the prefix out.
std::string spelling(const std::string& name) {
  for (const char* start : {"h.", "wte.", "wpe.", "ln_f."}) {
    if (name.starts_with(start)) return "transformer." + name;
  }
  return name;
}

/// The causal mask, once stored as a buffer.
Extra extra(const std::string& name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ? Extra::kIgnored
                                                                             : Extra::kUnknown;
}

}  // namespace

const Family& family_gpt2();
const Family& family_gpt2() {
  static const Family family = {
      .name = "gpt2",
      .hf_architectures = {"GPT2LMHeadModel"},
      .hf_model_types = {"gpt2"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = from_gguf,
      .to_gguf = decoder_to_gguf,
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, names()); },
      .hf_spelling = spelling,
      .hf_extra = extra,
  };
  return family;
}

}  // namespace slmc
