// Gemma 2: soft caps of attention and logits, windows in every other layer.
#include "formats/gemma.h"

namespace slmc {

const Family& family_gemma2();
const Family& family_gemma2() {
  static const Family family = {
      .name = "gemma2",
      .hf_architectures = {"Gemma2ForCausalLM"},
      .hf_model_types = {"gemma2"},
      .from_config =
          [](const Json& config, const std::string& where) {
            return gemma_from_config(Gemma::kTwo, config, where);
          },
      .to_config =
          [](const Architecture& arch, const Json& original) {
            return gemma_to_config(Gemma::kTwo, arch, original);
          },
      .from_gguf =
          [](const GgufFile& file, const std::string& where) {
            return gemma_from_gguf(Gemma::kTwo, file, where);
          },
      .to_gguf = [](const Architecture& arch,
                    GgufKeys& keys) { gemma_to_gguf(Gemma::kTwo, arch, keys); },
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, gemma_names()); },
      .gguf_query_scale =
          [](const Architecture& arch) { return gemma_gguf_query_scale(Gemma::kTwo, arch); },
  };
  return family;
}

}  // namespace slmc
