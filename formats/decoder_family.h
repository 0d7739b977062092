// What the decoder families share: reading and writing their configurations, names and keys. A
// family file says how it differs.
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
  int64_t head_dim = 0;  ///< 0: hidden / heads.
  int64_t context = 0;
  double norm_eps = 1e-6;
  int64_t bos = -1, eos = -1, pad = -1;
  bool tied = false;
  double theta = 10000.0;
  std::string activation_key = "hidden_act", activation = "silu";
  bool partial_rotary = false;  ///< The class heeds partial_rotary_factor.
  std::string family{};         ///< Architecture::family; empty: model_type.
};

/// Everything but biases and windows, which the families read themselves. Throws as
/// Family::from_config does.
Architecture decoder_from_config(const Json& config, const DecoderDefaults& defaults,
                                 const std::string& where);
/// The keys that decoder_from_config reads, in the spelling that `original` has (`rope_theta` +
/// `rope_scaling` when it has neither).
Json decoder_to_config(const Architecture& arch, const Json& original,
                       const DecoderDefaults& defaults);

/// The rotary settings that `settings` (rope_parameters, rope_scaling or one of a layer type's)
/// holds. `rope.theta` and `rope.dims` are given.
void read_rope_settings(const Json& settings, const Json& config, int64_t context, Rope& rope,
                        const std::string& where);
/// The reverse, without theta.
Json rope_settings(const Rope& rope, int64_t context, bool with_default);

/// `layer_types` ("sliding_attention", "full_attention") as Architecture::windowed; empty when the
/// key is absent. Throws Error(kUnsupported) for another kind of layer.
std::vector<uint8_t> read_layer_types(const Json& config, int64_t layers, const std::string& where);
Json layer_types(const Architecture& arch);

/// Throws Error(kUnsupported) if `layer_types` names more than one kind of layer.
void config_require_like_layers(const Json& config, const std::string& where);
/// Qwen's use_sliding_window, sliding_window, max_window_layers and layer_types.
void read_qwen_window(const Json& config, Architecture& arch, const std::string& where);
void write_qwen_window(const Architecture& arch, Json& config);

/// Throws Error(kUnsupported) for scaling that a GGUF has as a tensor, which llama.cpp does not
/// apply to `architecture`.
void refuse_rope_tensors(const Architecture& arch, const std::string& architecture);
/// Family::gguf_notes where llama.cpp does not apply the attention window.
std::vector<std::string> window_notes(const Architecture& arch);

/// From the keys `<architecture>.*`. Families add what no key says.
Architecture decoder_from_gguf(const GgufFile& file, const std::string& architecture,
                               const std::string& where);
void decoder_to_gguf(const Architecture& arch, GgufKeys& keys);

/// A part of a block ("attn_q") and its names in the two containers, `gguf` empty when it is the
/// same. Parts that share a name in a container are fused there.
struct BlockPart {
  std::string name, hf, gguf{};
};
struct DecoderNames {
  std::string embedding = "model.embed_tokens", layers = "model.layers.", norm = "model.norm",
              head = "lm_head", positions{};
  std::vector<BlockPart> parts;  ///< In canonical order.
  GgufRows query_order = GgufRows::kSame;
  bool conv1d = false;  ///< Linear weights are stored as [in, out] in a Hugging Face folder.
};
/// Llama's spelling, which most families share.
const DecoderNames& llama_names();
/// Parts that the architecture does not have are left out.
std::vector<TensorSpec> decoder_tensors(const Architecture& arch, const DecoderNames& names);
/// Those with Llama's spelling, whose query and key rows a GGUF has in interleaved rotary order.
std::vector<TensorSpec> rope_paired_tensors(const Architecture& arch);

// Reading config.json. Absent and null keys give the fallback; another kind is Error(kBadInput).
bool config_has(const Json& config, const char* key);
bool config_boolean(const Json& config, const char* key, bool fallback, const std::string& where);
/// A whole number from 1 to 2^31.
int64_t config_size(const Json& config, const char* key, int64_t fallback,
                    const std::string& where);
/// A positive number.
double config_number(const Json& config, const char* key, double fallback,
                     const std::string& where);
/// A token id; the first when there are several; -1 for none.
int64_t config_token(const Json& config, const char* key, int64_t fallback,
                     const std::string& where);
/// Writes a token id, leaving a list alone whose first is that id.
void write_token(Json& config, const char* key, int64_t id);
/// Throws Error(kUnsupported) when the key is there with another value than `implemented`.
void config_require(const Json& config, const char* key, const Json& implemented,
                    const std::string& where);
Activation activation_from_config(const Json& config, const std::string& key,
                                  const std::string& fallback, const std::string& where);
/// The value to write under the key: the original's if it means the same.
std::string activation_for_config(Activation activation, const Json& original,
                                  const std::string& key);
std::string shown(const Json& value);

// Reading GGUF keys.
int64_t gguf_size(const GgufKeys& keys, const std::string& key, const std::string& where);
double gguf_positive(const GgufKeys& keys, const std::string& key, double fallback,
                     const std::string& where);

}  // namespace slmc
