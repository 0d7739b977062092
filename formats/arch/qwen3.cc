// Qwen 3: no biases, a norm of each head's query and key before rotation, heads of their own width.
#include "compress/core/error.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

const DecoderDefaults& defaults() {
  static const DecoderDefaults values = {.model_type = "qwen3",
                                         .hf_architecture = "Qwen3ForCausalLM",
                                         .vocab = 151936,
                                         .hidden = 4096,
                                         .ffn = 22016,
                                         .layers = 32,
                                         .heads = 32,
                                         .kv_heads = 32,
                                         .head_dim = 128,
                                         .context = 32768,
                                         .norm_eps = 1e-6};
  return values;
}

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch = decoder_from_config(config, defaults(), where);
  arch.qk_norm = true;
  arch.qkv_bias = arch.output_bias = config_boolean(config, "attention_bias", false, where);
  read_qwen_window(config, arch, where);
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  if (!arch.qk_norm || arch.qkv_bias != arch.output_bias || arch.mlp_bias)
    throw_unsupported("Qwen3ForCausalLM has norms of queries and keys; this model differs");
  Json config = decoder_to_config(arch, original, defaults());
  config["attention_bias"] = arch.qkv_bias;
  write_qwen_window(arch, config);
  return config;
}

Architecture from_gguf(const GgufFile& file, const std::string& where) {
  Architecture arch = decoder_from_gguf(file, "qwen3", where);
  arch.qk_norm = true;
  return arch;
}

void to_gguf(const Architecture& arch, GgufKeys& keys) {
  refuse_rope_tensors(arch, "qwen3");
  if (arch.output_bias)
    throw_unsupported(
        "llama.cpp knows no bias of attn_output in qwen3 (attention_bias), so a GGUF "
        "cannot hold this model; write a safetensors folder");
  decoder_to_gguf(arch, keys);
}

}  // namespace

const Family& family_qwen3();
const Family& family_qwen3() {
  static const Family family = {
      .name = "qwen3",
      .hf_architectures = {"Qwen3ForCausalLM"},
      .hf_model_types = {"qwen3"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = from_gguf,
      .to_gguf = to_gguf,
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, llama_names()); },
      .gguf_notes = window_notes,
  };
  return family;
}

}  // namespace slmc
