// Gemma 3: (text models) norms of queries and keys, five windowed layers to a full one.
#include "formats/gemma.h"

namespace slmc {

const Family& family_gemma3();
const Family& family_gemma3() {
  static const Family family = {
      .name = "gemma3",
      .hf_architectures = {"Gemma3ForCausalLM"},
      .hf_model_types = {"gemma3_text"},
      .from_config =
          [](const Json& config, const std::string& where) {
            return gemma_from_config(Gemma::kThree, config, where);
          },
      .to_config =
          [](const Architecture& arch, const Json& original) {
            return gemma_to_config(Gemma::kThree, arch, original);
          },
      .from_gguf =
          [](const GgufFile& file, const std::string& where) {
            return gemma_from_gguf(Gemma::kThree, file, where);
          },
      .to_gguf = [](const Architecture& arch,
                    GgufKeys& keys) { gemma_to_gguf(Gemma::kThree, arch, keys); },
      .tensors = [](const Architecture& arch) { return decoder_tensors(arch, gemma_names()); },
      .gguf_query_scale =
          [](const Architecture& arch) { return gemma_gguf_query_scale(Gemma::kThree, arch); },
  };
  return family;
}

}  // namespace slmc
