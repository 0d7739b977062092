// Velvet, a made-up family: Llama with a norm of each head's query and key before rotation. This
// one file, put into formats/arch/, is all that slmc needs (docs/adding-a-family.md).
#include "compress/core/error.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

/// What VelvetConfig's constructor says for keys that a config.json leaves out.
const DecoderDefaults& defaults() {
  static const DecoderDefaults values = {.model_type = "velvet",
                                         .hf_architecture = "VelvetForCausalLM",
                                         .vocab = 32000,
                                         .hidden = 2048,
                                         .ffn = 8192,
                                         .layers = 16,
                                         .heads = 16,
                                         .kv_heads = 4,
                                         .context = 8192,
                                         .norm_eps = 1e-6};
  return values;
}

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch = decoder_from_config(config, defaults(), where);
  arch.qk_norm = config_boolean(config, "qk_norm", true, where);
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  if (arch.qkv_bias || arch.output_bias || arch.mlp_bias)
    throw_unsupported("VelvetForCausalLM has no biases; this model has");
  Json config = decoder_to_config(arch, original, defaults());
  config["qk_norm"] = arch.qk_norm;
  return config;
}

/// llama.cpp runs the same arithmetic under the name qwen3.
Architecture from_gguf(const GgufFile& file, const std::string& where) {
  Architecture arch = decoder_from_gguf(file, "qwen3", where);
  arch.qk_norm = true;
  return arch;
}

}  // namespace

const Family& family_velvet();
const Family& family_velvet() {
  static const Family family = {
      .name = "velvet",
      .gguf_architecture = "qwen3",
      .hf_architectures = {"VelvetForCausalLM"},
      .hf_model_types = {"velvet"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = from_gguf,
      .to_gguf = decoder_to_gguf,
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, llama_names()); },
  };
  return family;
}

}  // namespace slmc
