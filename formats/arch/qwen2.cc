// Qwen 2 and 2.5, DeepSeek-R1-Distill-Qwen: as Llama, with a bias on the query, key and value
// projections always and none elsewhere; rotary rows lie half-split in GGUF as they do in
// transformers.
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
                                         .norm_eps = 1e-6};
  return values;
}

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch = decoder_from_config(config, defaults(), where);
  arch.qkv_bias = true;
  read_qwen_window(config, arch, where);
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  if (!arch.qkv_bias || arch.output_bias || arch.mlp_bias) {
    throw_unsupported(
        "Qwen2ForCausalLM has a bias on the query, key and value projections and nowhere else; "
        "this model differs");
  }
  Json config = decoder_to_config(arch, original, defaults());
  write_qwen_window(arch, config);
  return config;
}

void to_gguf(const Architecture& arch, GgufKeys& keys) {
  refuse_rope_tensors(arch, "qwen2");
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
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, llama_names()); },
      .gguf_notes = window_notes,
  };
  return family;
}

}  // namespace slmc
