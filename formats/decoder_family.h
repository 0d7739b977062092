// What the pre-norm, gated, rotary decoder families (llama, qwen2) share: reading and writing their
// configurations, names and keys. A family file says how it differs.
#pragma once

#include <string>
#include <vector>

#include "formats/family.h"

namespace slmc {

/// transformers' class defaults for keys that a config.json leaves out.
struct DecoderDefaults {
  std::string model_type;
  std::string hf_architecture;
  int64_t vocab = 0, hidden = 0, ffn = 0, layers = 0, heads = 0;
  int64_t kv_heads = 0;  ///< 0: as many as heads.
  int64_t context = 0;
  double norm_eps = 1e-6;
  int64_t bos = -1, eos = -1;
};

/// Everything but biases and windows, which the families read themselves. Throws as
/// Family::from_config does.
Architecture decoder_from_config(const Json& config, const DecoderDefaults& defaults,
                                 const std::string& where);
/// The keys that decoder_from_config reads, in the spelling that `original` has (`rope_theta` +
/// `rope_scaling` when it has neither).
Json decoder_to_config(const Architecture& arch, const Json& original,
                       const DecoderDefaults& defaults);
Architecture decoder_from_gguf(const GgufFile& file, const std::string& family,
                               const std::string& where);
void decoder_to_gguf(const Architecture& arch, GgufKeys& keys);
/// `rows`: the layout of attn_q and attn_k in a GGUF.
std::vector<TensorSpec> decoder_tensors(const Architecture& arch, GgufRows rows);

/// A boolean key of config.json; absent or null gives `fallback`. Throws Error(kBadInput) for
/// another kind.
bool config_boolean(const Json& config, const char* key, bool fallback, const std::string& where);

}  // namespace slmc
