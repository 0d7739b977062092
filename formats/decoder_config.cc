// config.json of the decoder families, both ways and in both spellings of the rotary settings.
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/compressed_tensors.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

double required_number(const Json& config, const char* key, const std::string& where) {
  if (!config_has(config, key)) throw_bad_input(cat(where, ": ", key, " is missing"));
  return config_number(config, key, 0, where);
}

std::vector<float> read_factors(const Json& settings, const char* key, int64_t pairs,
                                const std::string& where) {
  const Json& list = settings.contains(key) ? settings[key] : Json();
  if (!list.is_array() || static_cast<int64_t>(list.size()) != pairs)
    throw_bad_input(cat(where, ": ", key, ": expected ", pairs, " numbers, found ", shown(list)));
  std::vector<float> factors;
  for (const Json& item : list) {
    if (!item.is_number() || !(item.get<double>() > 0) || !std::isfinite(item.get<double>()))
      throw_bad_input(cat(where, ": ", key, ": expected positive numbers, found ", shown(item)));
    factors.push_back(item.get<float>());
  }
  return factors;
}

double longrope_attention_factor(double factor, int64_t original) {
  return factor <= 1 ? 1.0
                     : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
}

void read_llama3(const Json& settings, Rope& rope, const std::string& where) {
  rope.factor = required_number(settings, "factor", where);
  rope.low_freq_factor = required_number(settings, "low_freq_factor", where);
  rope.high_freq_factor = required_number(settings, "high_freq_factor", where);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    throw_bad_input(cat(where, ": high_freq_factor ", rope.high_freq_factor,
                        " is not above low_freq_factor ", rope.low_freq_factor));
  }
}

void read_yarn(const Json& settings, int64_t context, Rope& rope, const std::string& where) {
  rope.factor = config_number(
      settings, "factor", static_cast<double>(context) / static_cast<double>(rope.original_context),
      where);
  rope.beta_fast = config_number(settings, "beta_fast", 32, where);
  rope.beta_slow = config_number(settings, "beta_slow", 1, where);
  rope.truncate = config_boolean(settings, "truncate", true, where);
  double usual = yarn_attention_factor(rope.factor);
  if (config_has(settings, "mscale") && config_has(settings, "mscale_all_dim")) {
    const auto scaled = [&](const char* key) {
      return rope.factor <= 1
                 ? 1.0
                 : 0.1 * config_number(settings, key, 1, where) * std::log(rope.factor) + 1.0;
    };
    usual = scaled("mscale") / scaled("mscale_all_dim");
  }
  rope.attention_factor = config_number(settings, "attention_factor", usual, where);
}

void read_longrope(const Json& settings, int64_t context, Rope& rope, const std::string& where) {
  rope.short_factors = read_factors(settings, "short_factor", rope.dims / 2, where);
  rope.long_factors = read_factors(settings, "long_factor", rope.dims / 2, where);
  const double factor = config_number(
      settings, "factor", static_cast<double>(context) / static_cast<double>(rope.original_context),
      where);
  rope.attention_factor =
      config_number(settings, "attention_factor",
                    longrope_attention_factor(factor, rope.original_context), where);
}

/// The rotary settings, from `rope_parameters` or from `rope_theta` with `rope_scaling`.
Rope read_rope(const Json& config, const Architecture& arch, const DecoderDefaults& defaults,
               const std::string& where) {
  Rope rope;
  const bool newer = config_has(config, "rope_parameters");
  const char* block = newer ? "rope_parameters" : "rope_scaling";
  const Json& settings = config_has(config, block) ? config[block] : Json::object();
  const std::string at = cat(where, ": ", block);
  if (!settings.is_object())
    throw_bad_input(cat(at, ": expected an object, found ", shown(settings)));
  rope.theta = config_number(settings, "rope_theta",
                             config_number(config, "rope_theta", defaults.theta, where), at);
  const double partial =
      config_number(settings, "partial_rotary_factor",
                    config_number(config, "partial_rotary_factor", 1.0, where), where);
  if (partial != 1.0 && !defaults.partial_rotary)
    throw_unsupported(cat(where, ": partial_rotary_factor other than 1"));
  rope.dims = static_cast<int64_t>(static_cast<double>(arch.head_dim) * partial);
  if (partial > 1.0 || rope.dims < 2 || rope.dims % 2 != 0) {
    throw_bad_input(cat(where, ": partial_rotary_factor ", partial, " of ", arch.head_dim,
                        " dimensions does not give pairs"));
  }
  for (const auto& [key, value] : settings.items()) {
    if (value.is_object())
      throw_unsupported(cat(at, ": settings for each kind of layer (", key, ")"));
  }
  read_rope_settings(settings, config, arch.context, rope, at);
  return rope;
}

void write_rope(const Architecture& arch, const DecoderDefaults& defaults, Json& config) {
  const Rope& rope = arch.rope;
  const bool newer = config_has(config, "rope_parameters");
  if (newer || config_has(config, "rope_theta")) {
    try {  // What says the same already stays as it is written.
      if (rope_difference(read_rope(config, arch, defaults, ""), rope, "").empty()) return;
    } catch (const Error&) {
      // Another architecture's settings; they are replaced.
    }
  }
  Json settings = rope_settings(rope, arch.context, newer);
  if (rope.dims != arch.head_dim) {
    config[newer ? "rope_parameters" : "partial_rotary_factor"] = nullptr;
    (newer ? settings : config)["partial_rotary_factor"] =
        static_cast<double>(rope.dims) / static_cast<double>(arch.head_dim);
  }
  if (newer) {
    settings["rope_theta"] = rope.theta;
    config["rope_parameters"] = settings;
    return;
  }
  config["rope_theta"] = rope.theta;
  config["rope_scaling"] = rope.scaling == RopeScaling::kNone ? Json(nullptr) : settings;
}

}  // namespace

namespace {

/// Keys by which relatives of these families compute something else, and the value at which they do
/// not.
void refuse_foreign_keys(const Json& config, const DecoderDefaults& defaults,
                         const std::string& where) {
  static const std::vector<std::pair<const char*, Json>> keys = {
      {"num_local_experts", 1},      {"num_experts", 1},
      {"n_routed_experts", 1},       {"attention_multiplier", 1.0},
      {"embedding_multiplier", 1.0}, {"residual_multiplier", 1.0},
      {"logits_scaling", 1.0},       {"logit_scale", 1.0},
      {"clip_qkv", nullptr},         {"use_mrope", false},
      {"no_rope_layers", nullptr},   {"rope_interleaved", false},
      {"use_qk_norm", false},        {"kv_lora_rank", nullptr}};
  for (const auto& [key, neutral] : keys) {
    if (!config_has(config, key) || config[key] == neutral || config[key] == 0) continue;
    throw_unsupported(
        cat(where, ": ", key, " ", shown(config[key]), " is not implemented for this class"));
  }
  if (defaults.activation_key != "hidden_act") return;  // Gemma has them.
  for (const char* key : {"final_logit_softcapping", "attn_logit_softcapping"}) {
    if (config_has(config, key))
      throw_unsupported(cat(where, ": ", key, " is not implemented for this class"));
  }
}

}  // namespace

void read_rope_settings(const Json& settings, const Json& config, int64_t context, Rope& rope,
                        const std::string& where) {
  const char* type_key = config_has(settings, "rope_type") ? "rope_type" : "type";
  if (!config_has(settings, type_key)) return;
  if (!settings[type_key].is_string())
    throw_bad_input(cat(where, ": ", type_key, " is not a string"));
  const auto type = settings[type_key].get<std::string>();
  // As in transformers, the key of the configuration itself comes before the one among the rotary
  // settings.
  const int64_t original =
      config_size(config, "original_max_position_embeddings",
                  config_size(settings, "original_max_position_embeddings", context, where), where);
  if (type == "default") return;
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor = required_number(settings, "factor", where);
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
    rope.original_context = original;
    read_llama3(settings, rope, where);
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.original_context = original;
    read_yarn(settings, context, rope, where);
  } else if (type == "longrope" || type == "su") {
    rope.scaling = RopeScaling::kLongrope;
    rope.original_context = original;
    read_longrope(settings, context, rope, where);
  } else {
    throw_unsupported(cat(where, ": ", type_key, " \"", type,
                          "\"; default, linear, llama3, yarn and longrope are implemented"));
  }
}

Json rope_settings(const Rope& rope, int64_t context, bool with_default) {
  Json settings = Json::object();
  if (rope.scaling == RopeScaling::kNone) {
    if (with_default) settings["rope_type"] = "default";
    return settings;
  }
  if (rope.scaling == RopeScaling::kFactors) {
    throw_unsupported(
        "this model's rope factors are known only as numbers (from a GGUF without slmc's keys); "
        "config.json cannot hold them");
  }
  settings["rope_type"] = rope_scaling_name(rope.scaling);
  if (rope.scaling != RopeScaling::kLongrope) settings["factor"] = rope.factor;
  if (rope.scaling == RopeScaling::kLinear) return settings;
  settings["original_max_position_embeddings"] = rope.original_context;
  if (rope.scaling == RopeScaling::kLlama3) {
    settings["low_freq_factor"] = rope.low_freq_factor;
    settings["high_freq_factor"] = rope.high_freq_factor;
    return settings;
  }
  double usual = yarn_attention_factor(rope.factor);
  if (rope.scaling == RopeScaling::kYarn) {
    if (rope.beta_fast != 32) settings["beta_fast"] = rope.beta_fast;
    if (rope.beta_slow != 1) settings["beta_slow"] = rope.beta_slow;
    if (!rope.truncate) settings["truncate"] = false;
  } else {
    settings["short_factor"] = rope.short_factors;
    settings["long_factor"] = rope.long_factors;
    usual = longrope_attention_factor(
        static_cast<double>(context) / static_cast<double>(rope.original_context),
        rope.original_context);
  }
  if (static_cast<float>(usual) != static_cast<float>(rope.attention_factor))
    settings["attention_factor"] = rope.attention_factor;
  return settings;
}

Architecture decoder_from_config(const Json& config, const DecoderDefaults& defaults,
                                 const std::string& where) {
  check_quantization_config(config, where);
  refuse_foreign_keys(config, defaults, where);
  Architecture arch;
  arch.family = defaults.family.empty() ? defaults.model_type : defaults.family;
  arch.activation =
      activation_from_config(config, defaults.activation_key, defaults.activation, where);
  arch.layers = config_size(config, "num_hidden_layers", defaults.layers, where);
  arch.hidden = config_size(config, "hidden_size", defaults.hidden, where);
  arch.ffn = config_size(config, "intermediate_size", defaults.ffn, where);
  arch.heads = config_size(config, "num_attention_heads", defaults.heads, where);
  const bool kv_default = defaults.kv_heads > 0 && !config.contains("num_key_value_heads");
  arch.kv_heads = config_size(config, "num_key_value_heads",
                              kv_default ? defaults.kv_heads : arch.heads, where);
  arch.vocab = config_size(config, "vocab_size", defaults.vocab, where);
  arch.context = config_size(config, "max_position_embeddings", defaults.context, where);
  arch.norm_eps = config_number(config, "rms_norm_eps", defaults.norm_eps, where);
  arch.tied = config_boolean(config, "tie_word_embeddings", defaults.tied, where);
  arch.bos = config_token(config, "bos_token_id", defaults.bos, where);
  arch.eos = config_token(config, "eos_token_id", defaults.eos, where);
  arch.pad = config_token(config, "pad_token_id", defaults.pad, where);
  const bool head_default = defaults.head_dim > 0 && !config.contains("head_dim");
  if (!config_has(config, "head_dim") && !head_default && arch.hidden % arch.heads != 0) {
    throw_bad_input(cat(where, ": hidden_size ", arch.hidden,
                        " is not a multiple of num_attention_heads ", arch.heads,
                        ", and there is no head_dim"));
  }
  arch.head_dim = config_size(config, "head_dim",
                              head_default ? defaults.head_dim : arch.hidden / arch.heads, where);
  if (arch.head_dim % 2 != 0)
    throw_bad_input(
        cat(where, ": head_dim ", arch.head_dim, " is odd; rotary embeddings need pairs"));
  if (arch.heads % arch.kv_heads != 0) {
    throw_bad_input(cat(where, ": num_attention_heads ", arch.heads,
                        " is not a multiple of num_key_value_heads ", arch.kv_heads));
  }
  arch.rope = read_rope(config, arch, defaults, where);
  return arch;
}

Json decoder_to_config(const Architecture& arch, const Json& original,
                       const DecoderDefaults& defaults) {
  Json config = original.is_object() ? original : Json::object();
  config.erase("quantization_config");  // The writer of a folder knows its own.
  if (!config_has(config, "architectures")) config["architectures"] = {defaults.hf_architecture};
  config["model_type"] = defaults.model_type;
  config["hidden_size"] = arch.hidden;
  config["intermediate_size"] = arch.ffn;
  config["num_hidden_layers"] = arch.layers;
  config["num_attention_heads"] = arch.heads;
  config["num_key_value_heads"] = arch.kv_heads;
  const int64_t implied = defaults.head_dim > 0 && !config.contains("head_dim")
                              ? defaults.head_dim
                              : arch.hidden / arch.heads;
  if (config_has(config, "head_dim") || arch.head_dim != implied || arch.hidden % arch.heads != 0)
    config["head_dim"] = arch.head_dim;
  config["vocab_size"] = arch.vocab;
  config["max_position_embeddings"] = arch.context;
  config["rms_norm_eps"] = arch.norm_eps;
  config[defaults.activation_key] =
      activation_for_config(arch.activation, config, defaults.activation_key);
  config["tie_word_embeddings"] = arch.tied;
  write_token(config, "bos_token_id", arch.bos);
  write_token(config, "eos_token_id", arch.eos);
  if (arch.pad >= 0 || defaults.pad >= 0 || config.contains("pad_token_id"))
    write_token(config, "pad_token_id", arch.pad);
  write_rope(arch, defaults, config);
  if (config_has(config, "layer_types")) config["layer_types"] = layer_types(arch);
  return config;
}

}  // namespace slmc
