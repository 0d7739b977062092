// Qwen 2 and 2.5: as Llama, with a bias on the query, key and value projections always and none
// elsewhere; rotary rows lie half-split in GGUF as they do in transformers.
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

const DecoderDefaults& defaults() {
  static const DecoderDefaults values = {.model_type = "qwen2",
                                         .hf_architecture = "Qwen2ForCausalLM",
                                         .vocab = 151936,
                                         .hidden = 4096,
                                         .ffn = 22016,
                                         .layers = 32,
                                         .heads = 32,
                                         .kv_heads = 32,
                                         .context = 32768,
                                         .norm_eps = 1e-6,
                                         .bos = -1,
                                         .eos = -1};
  return values;
}

Architecture from_config(const Json& config, const std::string& where) {
  if (config_boolean(config, "use_sliding_window", false, where))
    throw_unsupported(cat(where, ": use_sliding_window: windowed attention is not implemented"));
  if (config.contains("layer_types") && config["layer_types"].is_array()) {
    for (const Json& kind : config["layer_types"]) {
      if (kind != "full_attention")
        throw_unsupported(cat(where, ": layer_types: only full_attention is implemented"));
    }
  }
  Architecture arch = decoder_from_config(config, defaults(), where);
  arch.qkv_bias = true;
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  if (!arch.qkv_bias || arch.output_bias || arch.mlp_bias) {
    throw_unsupported(
        "Qwen2ForCausalLM has a bias on the query, key and value projections and nowhere else; "
        "this model differs");
  }
  return decoder_to_config(arch, original, defaults());
}

void to_gguf(const Architecture& arch, GgufKeys& keys) {
  if (!rope_frequency_factors(arch.rope).empty()) {
    throw_unsupported(cat("llama.cpp applies no rope_freqs to qwen2, so a GGUF cannot carry ",
                          rope_scaling_name(arch.rope.scaling),
                          " rope scaling; write a safetensors folder"));
  }
  decoder_to_gguf(arch, keys);
}

}  // namespace

const Family& family_qwen2();
const Family& family_qwen2() {
  static const Family family = {
      .name = "qwen2",
      .hf_architectures = {"Qwen2ForCausalLM"},
      .hf_model_types = {"qwen2"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = [](const GgufFile& file,
                      const std::string& where) { return decoder_from_gguf(file, "qwen2", where); },
      .to_gguf = to_gguf,
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, GgufRows::kSame); },
  };
  return family;
}

}  // namespace slmc
