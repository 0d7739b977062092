// Mistral 7B and what follows its class: Llama with an attention window, which version 0.1 used and
// later ones switch off. A GGUF calls it llama and has no key for the window.
#include "formats/decoder_family.h"

namespace slmc {
namespace {

const DecoderDefaults& defaults() {
  static const DecoderDefaults values = {.model_type = "mistral",
                                         .hf_architecture = "MistralForCausalLM",
                                         .vocab = 32000,
                                         .hidden = 4096,
                                         .ffn = 14336,
                                         .layers = 32,
                                         .heads = 32,
                                         .kv_heads = 8,
                                         .context = 131072,
                                         .norm_eps = 1e-6,
                                         .bos = 1,
                                         .eos = 2};
  return values;
}

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch = decoder_from_config(config, defaults(), where);
  config_require_like_layers(config, where);
  const bool none = config.contains("sliding_window") && config["sliding_window"].is_null();
  arch.window = none ? 0 : config_size(config, "sliding_window", 4096, where);
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  Json config = decoder_to_config(arch, original, defaults());
  config["sliding_window"] = arch.window > 0 ? Json(arch.window) : Json(nullptr);
  return config;
}

}  // namespace

const Family& family_mistral();
const Family& family_mistral() {
  static const Family family = {
      .name = "mistral",
      .gguf_architecture = "llama",
      .hf_architectures = {"MistralForCausalLM"},
      .hf_model_types = {"mistral"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = [](const GgufFile& file,
                      const std::string& where) { return decoder_from_gguf(file, "llama", where); },
      .to_gguf = decoder_to_gguf,
      .tensors = rope_paired_tensors,
      .gguf_notes = window_notes,
  };
  return family;
}

}  // namespace slmc
