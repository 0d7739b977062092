// Phi-3, Phi-3.5 and Phi-4-mini: query, key and value in one matrix, gate and up in another,
// longrope scaling, rotary embedding of a part of each head, a window in some.
#include "compress/core/error.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

const DecoderDefaults& defaults() {
  static const DecoderDefaults values = {.model_type = "phi3",
                                         .hf_architecture = "Phi3ForCausalLM",
                                         .vocab = 32064,
                                         .hidden = 3072,
                                         .ffn = 8192,
                                         .layers = 32,
                                         .heads = 32,
                                         .context = 4096,
                                         .norm_eps = 1e-5,
                                         .bos = 1,
                                         .eos = 32000,
                                         .pad = 32000,
                                         .partial_rotary = true};
  return values;
}

/// The class has a default of its own for original_max_position_embeddings, and calls longrope
/// "su" or "yarn" in its early configurations.
Json spelled_out(const Json& config) {
  Json spelled = config;
  if (!config_has(config, "original_max_position_embeddings"))
    spelled["original_max_position_embeddings"] = 4096;
  for (const char* block : {"rope_parameters", "rope_scaling"}) {
    for (const char* key : {"rope_type", "type"}) {
      if (config_has(config, block) && config[block].is_object() &&
          config_has(config[block], key) && config[block][key] == "yarn")
        spelled[block][key] = "longrope";
    }
  }
  return spelled;
}

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch = decoder_from_config(spelled_out(config), defaults(), where);
  arch.window = config_size(config, "sliding_window", 0, where);
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  if (arch.rope.scaling != RopeScaling::kNone && arch.rope.scaling != RopeScaling::kLongrope)
    throw_unsupported("Phi3ForCausalLM scales its rotary embedding by longrope only");
  Json config = decoder_to_config(arch, spelled_out(original), defaults());
  if (arch.rope.scaling == RopeScaling::kLongrope)
    config["original_max_position_embeddings"] = arch.rope.original_context;
  config["sliding_window"] = arch.window > 0 ? Json(arch.window) : Json(nullptr);
  return config;
}

Architecture from_gguf(const GgufFile& file, const std::string& where) {
  Architecture arch = decoder_from_gguf(file, "phi3", where);
  arch.window = file.keys.integer_or("phi3.attention.sliding_window", 0, where);
  return arch;
}

void to_gguf(const Architecture& arch, GgufKeys& keys) {
  decoder_to_gguf(arch, keys);
  keys.set("phi3.attention.sliding_window", static_cast<uint32_t>(arch.window));
}

const DecoderNames& names() {
  static const DecoderNames all = {.parts = {{"attn_norm", "input_layernorm"},
                                             {"attn_q", "self_attn.qkv_proj", "attn_qkv"},
                                             {"attn_k", "self_attn.qkv_proj", "attn_qkv"},
                                             {"attn_v", "self_attn.qkv_proj", "attn_qkv"},
                                             {"attn_output", "self_attn.o_proj"},
                                             {"ffn_norm", "post_attention_layernorm"},
                                             {"ffn_gate", "mlp.gate_up_proj", "ffn_up"},
                                             {"ffn_up", "mlp.gate_up_proj", "ffn_up"},
                                             {"ffn_down", "mlp.down_proj"}}};
  return all;
}

}  // namespace

const Family& family_phi3();
const Family& family_phi3() {
  static const Family family = {
      .name = "phi3",
      .hf_architectures = {"Phi3ForCausalLM"},
      .hf_model_types = {"phi3"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = from_gguf,
      .to_gguf = to_gguf,
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, names()); },
      .gguf_notes = window_notes,
  };
  return family;
}

}  // namespace slmc
