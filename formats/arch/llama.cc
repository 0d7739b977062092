// Llama 2 and 3, TinyLlama, SmolLM, DeepSeek-R1-Distill-Llama and others that call themselves
// LlamaForCausalLM. llama.cpp stores their query and key rows in interleaved rotary order.
#include "compress/core/error.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

const DecoderDefaults& defaults() {
  static const DecoderDefaults values = {.model_type = "llama",
                                         .hf_architecture = "LlamaForCausalLM",
                                         .vocab = 32000,
                                         .hidden = 4096,
                                         .ffn = 11008,
                                         .layers = 32,
                                         .heads = 32,
                                         .context = 2048,
                                         .norm_eps = 1e-6,
                                         .bos = 1,
                                         .eos = 2};
  return values;
}

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch = decoder_from_config(config, defaults(), where);
  arch.qkv_bias = arch.output_bias = config_boolean(config, "attention_bias", false, where);
  arch.mlp_bias = config_boolean(config, "mlp_bias", false, where);
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  if (arch.qkv_bias != arch.output_bias) {
    throw_unsupported(
        "LlamaForCausalLM cannot have a bias on the query, key and value projections without one "
        "on the attention's output");
  }
  Json config = decoder_to_config(arch, original, defaults());
  config["attention_bias"] = arch.qkv_bias;
  config["mlp_bias"] = arch.mlp_bias;
  return config;
}

}  // namespace

const Family& family_llama();
const Family& family_llama() {
  static const Family family = {
      .name = "llama",
      .hf_architectures = {"LlamaForCausalLM"},
      .hf_model_types = {"llama"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = [](const GgufFile& file,
                      const std::string& where) { return decoder_from_gguf(file, "llama", where); },
      .to_gguf = decoder_to_gguf,
      .tensors = rope_paired_tensors,
  };
  return family;
}

}  // namespace slmc
