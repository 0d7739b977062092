#include "formats/gemma.h"

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr double kLocalTheta = 10000.0;  // Of Gemma 3's windowed layers.

const DecoderDefaults& defaults(Gemma version) {
  static const auto make = [](Gemma which) {
    const bool two = which == Gemma::kTwo;
    return DecoderDefaults{
        .model_type = two ? "gemma2" : "gemma3_text",
        .hf_architecture = two ? "Gemma2ForCausalLM" : "Gemma3ForCausalLM",
        .vocab = two ? 256000 : 262208,
        .hidden = 2304,
        .ffn = 9216,
        .layers = 26,
        .heads = 8,
        .kv_heads = 4,
        .head_dim = 256,
        .context = two ? 8192 : 131072,
        .norm_eps = 1e-6,
        .bos = 2,
        .eos = 1,
        .pad = 0,
        .tied = true,
        .theta = two ? 10000.0 : 1000000.0,
        .activation_key = "hidden_activation",
        .activation = "gelu_pytorch_tanh",
        .family = two ? "gemma2" : "gemma3",
    };
  };
  static const DecoderDefaults two = make(Gemma::kTwo), three = make(Gemma::kThree);
  return version == Gemma::kTwo ? two : three;
}

void set_kind(Gemma version, Architecture& arch) {
  arch.norm_offset = 1.0;
  arch.branch_norms = true;
  arch.qk_norm = version == Gemma::kThree;
  arch.embedding_scale = std::sqrt(static_cast<double>(arch.hidden));
}

int64_t usual_period(Gemma version) { return version == Gemma::kTwo ? 2 : 6; }

std::vector<uint8_t> periodic(int64_t layers, int64_t period) {
  std::vector<uint8_t> windowed;
  for (int64_t layer = 0; layer < layers; ++layer)
    windowed.push_back((layer + 1) % period != 0 ? 1 : 0);
  return windowed;
}

/// A cap that a null key switches off.
double read_cap(const Json& config, const char* key, double fallback, const std::string& where) {
  if (config.contains(key) && config[key].is_null()) return 0;
  return config_has(config, key) || fallback > 0 ? config_number(config, key, fallback, where) : 0;
}

void read_windows(Gemma version, const Json& config, Architecture& arch, const std::string& where) {
  arch.windowed = read_layer_types(config, arch.layers, where);
  if (arch.windowed.empty()) {
    const char* key = "sliding_window_pattern";
    const int64_t period =
        version == Gemma::kThree ? config_size(config, key, usual_period(version), where) : 2;
    arch.windowed = periodic(arch.layers, period);
  }
  const bool none = config.contains("sliding_window") && config["sliding_window"].is_null();
  arch.window = none ? 0 : config_size(config, "sliding_window", 4096, where);
  for (const uint8_t windowed : arch.windowed) {
    if (windowed != 0 && none)
      throw_bad_input(
          cat(where, ": sliding_window is null, but some layers are sliding_attention"));
  }
}

/// Gemma 3's two rotary embeddings, in the newer spelling (rope_parameters with an object for each
/// kind of layer) or the older (rope_theta, rope_scaling, rope_local_base_freq).
void read_gemma3_rope(const Json& config, Architecture& arch, const std::string& where) {
  Rope full{.theta = config_number(config, "rope_theta", 1000000.0, where),
            .dims = arch.head_dim,
            .factors = {},
            .short_factors = {},
            .long_factors = {}};
  Rope local = full;
  local.theta = config_number(config, "rope_local_base_freq", kLocalTheta, where);
  if (config_has(config, "rope_parameters")) {
    const Json& both = config["rope_parameters"];
    const std::string at = cat(where, ": rope_parameters");
    for (auto [key, rope] : {std::pair{"full_attention", &full}, {"sliding_attention", &local}}) {
      if (!both.is_object() || (both.contains("rope_type") && !both.contains(key)))
        throw_unsupported(cat(at, ": expected settings for each kind of layer"));
      if (!config_has(both, key)) continue;
      if (!both[key].is_object()) throw_bad_input(cat(at, ": ", key, ": expected an object"));
      rope->theta = config_number(both[key], "rope_theta", rope->theta, at);
      read_rope_settings(both[key], config, arch.context, *rope, cat(at, ": ", key));
    }
  } else if (config_has(config, "rope_scaling")) {
    if (!config["rope_scaling"].is_object())
      throw_bad_input(cat(where, ": rope_scaling: expected an object"));
    read_rope_settings(config["rope_scaling"], config, arch.context, full,
                       cat(where, ": rope_scaling"));
  }
  arch.rope = full;
  arch.local_rope = local;
}

void write_gemma3_rope(const Architecture& arch, const Json& original, Json& config) {
  const Rope local = arch.local_rope.value_or(arch.rope);
  const Json full_settings = rope_settings(arch.rope, arch.context, true);
  const bool newer = config_has(original, "rope_parameters");
  if (newer || local.scaling != RopeScaling::kNone) {
    Json both = {{"full_attention", full_settings},
                 {"sliding_attention", rope_settings(local, arch.context, true)}};
    both["full_attention"]["rope_theta"] = arch.rope.theta;
    both["sliding_attention"]["rope_theta"] = local.theta;
    for (const char* key : {"rope_theta", "rope_scaling", "rope_local_base_freq"})
      config.erase(key);
    config["rope_parameters"] = both;
    return;
  }
  config["rope_theta"] = arch.rope.theta;
  config["rope_local_base_freq"] = local.theta;
  config["rope_scaling"] = arch.rope.scaling == RopeScaling::kNone ? Json(nullptr) : full_settings;
}

/// The rest of the configuration, as it is read and written without Gemma 3's nested settings.
Json without_rope(const Json& config) {
  Json rest = config.is_object() ? config : Json::object();
  for (const char* key : {"rope_parameters", "rope_theta", "rope_scaling", "layer_types"})
    rest.erase(key);
  return rest;
}

}  // namespace

Architecture gemma_from_config(Gemma version, const Json& config, const std::string& where) {
  config_require(config, "use_bidirectional_attention", false, where);
  const bool three = version == Gemma::kThree;
  Architecture arch =
      decoder_from_config(three ? without_rope(config) : config, defaults(version), where);
  set_kind(version, arch);
  arch.qkv_bias = arch.output_bias = config_boolean(config, "attention_bias", false, where);
  arch.attention_scale =
      1.0 / std::sqrt(config_number(config, "query_pre_attn_scalar", 256, where));
  arch.final_cap = read_cap(config, "final_logit_softcapping", three ? 0 : 30, where);
  // transformers leaves Gemma 3's products uncapped whatever the key says.
  arch.attention_cap = three ? 0 : read_cap(config, "attn_logit_softcapping", 50, where);
  if (three) config_require(config, "attn_logit_softcapping", nullptr, where);
  read_windows(version, config, arch, where);
  if (three) read_gemma3_rope(config, arch, where);
  return arch;
}

Json gemma_to_config(Gemma version, const Architecture& arch, const Json& original) {
  const bool three = version == Gemma::kThree;
  Json config =
      decoder_to_config(arch, three ? without_rope(original) : original, defaults(version));
  if (three) write_gemma3_rope(arch, original, config);
  const double scale = query_scale(arch), scalar = 1.0 / (scale * scale);
  const double whole = std::round(scalar);
  // The square root of a whole number rounds back to it.
  config["query_pre_attn_scalar"] =
      std::abs(scalar - whole) < 1e-6 * whole ? Json(static_cast<int64_t>(whole)) : Json(scalar);
  config["attention_bias"] = arch.qkv_bias;
  const auto cap = [](double value) { return value > 0 ? Json(value) : Json(nullptr); };
  config["final_logit_softcapping"] = cap(arch.final_cap);
  config["attn_logit_softcapping"] = cap(arch.attention_cap);
  config["sliding_window"] = arch.window > 0 ? Json(arch.window) : Json(nullptr);
  const int64_t period = three && config_has(original, "sliding_window_pattern")
                             ? original.value("sliding_window_pattern", int64_t{6})
                             : usual_period(version);
  const bool said = arch.windowed == periodic(arch.layers, period);
  if (!said || config_has(original, "layer_types")) config["layer_types"] = layer_types(arch);
  return config;
}

Architecture gemma_from_gguf(Gemma version, const GgufFile& file, const std::string& where) {
  const std::string prefix = version == Gemma::kTwo ? "gemma2." : "gemma3.";
  const GgufKeys& keys = file.keys;
  Architecture arch = decoder_from_gguf(file, version == Gemma::kTwo ? "gemma2" : "gemma3", where);
  set_kind(version, arch);
  arch.activation = Activation::kGeluTanh;
  arch.attention_scale = gemma_gguf_query_scale(version, arch);
  const auto cap = [&](const char* key) { return keys.number_or(prefix + key, 0.0, where); };
  arch.final_cap = cap("final_logit_softcapping");
  if (version == Gemma::kTwo) arch.attention_cap = cap("attn_logit_softcapping");
  arch.window = keys.integer_or(prefix + "attention.sliding_window",
                                version == Gemma::kTwo ? 4096 : 0, where);
  if (arch.window == 0) return arch;
  const std::string pattern = prefix + "attention.sliding_window_pattern";
  const GgufValue* value = keys.find(pattern);
  if (value != nullptr && std::holds_alternative<GgufArray>(*value)) {
    for (const int64_t windowed : keys.integers(pattern, where))
      arch.windowed.push_back(windowed != 0 ? 1 : 0);
    if (static_cast<int64_t>(arch.windowed.size()) < arch.layers)
      throw_bad_input(cat(where, ": key ", pattern, ": expected a value for each layer"));
    arch.windowed.resize(static_cast<size_t>(arch.layers));
  } else {
    arch.windowed = periodic(
        arch.layers, value == nullptr ? usual_period(version) : gguf_size(keys, pattern, where));
  }
  if (version == Gemma::kTwo) return arch;
  arch.local_rope =
      Rope{.theta = gguf_positive(keys, prefix + "rope.freq_base_swa", kLocalTheta, where),
           .dims = arch.rope.dims,
           .factors = {},
           .short_factors = {},
           .long_factors = {}};
  return arch;
}

void gemma_to_gguf(Gemma version, const Architecture& arch, GgufKeys& keys) {
  const std::string prefix = version == Gemma::kTwo ? "gemma2." : "gemma3.";
  if (version == Gemma::kTwo && !arch.tied)
    throw_unsupported(
        "llama.cpp knows no head of its own in gemma2 (tie_word_embeddings false); "
        "write a safetensors folder");
  if (arch.output_bias)
    throw_unsupported(cat("llama.cpp knows no bias of attn_output in ", prefix,
                          "* (attention_bias); write a safetensors folder"));
  refuse_rope_tensors(arch, version == Gemma::kTwo ? "gemma2" : "gemma3");
  decoder_to_gguf(arch, keys);
  const auto cap = [&](const char* key, double value) {
    if (value > 0) keys.set(prefix + key, static_cast<float>(value));
  };
  cap("final_logit_softcapping", arch.final_cap);
  cap("attn_logit_softcapping", arch.attention_cap);
  if (arch.window == 0) return;
  keys.set(prefix + "attention.sliding_window", static_cast<uint32_t>(arch.window));
  // Always said: not every llama.cpp counts the usual period alike.
  std::vector<uint32_t> pattern(arch.windowed.begin(), arch.windowed.end());
  keys.set(prefix + "attention.sliding_window_pattern", GgufArray(std::move(pattern)));
  if (arch.local_rope)
    keys.set(prefix + "rope.freq_base_swa", static_cast<float>(arch.local_rope->theta));
}

double gemma_gguf_query_scale(Gemma version, const Architecture& arch) {
  const bool largest = arch.layers == (version == Gemma::kTwo ? 46 : 62);
  const int64_t width = largest ? arch.hidden / arch.heads : arch.head_dim;
  return 1.0 / std::sqrt(static_cast<double>(width));
}

const DecoderNames& gemma_names() {
  static const DecoderNames names = {.parts = {{"attn_norm", "input_layernorm"},
                                               {"attn_q", "self_attn.q_proj"},
                                               {"attn_k", "self_attn.k_proj"},
                                               {"attn_v", "self_attn.v_proj"},
                                               {"attn_q_norm", "self_attn.q_norm"},
                                               {"attn_k_norm", "self_attn.k_norm"},
                                               {"attn_output", "self_attn.o_proj"},
                                               {"post_attention_norm", "post_attention_layernorm"},
                                               {"ffn_norm", "pre_feedforward_layernorm"},
                                               {"ffn_gate", "mlp.gate_proj"},
                                               {"ffn_up", "mlp.up_proj"},
                                               {"ffn_down", "mlp.down_proj"},
                                               {"post_ffw_norm", "post_feedforward_layernorm"}}};
  return names;
}

}  // namespace slmc
