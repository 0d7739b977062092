// config.json of the decoder families, both ways and in both spellings of the rotary settings.
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;

bool present(const Json& json, const char* key) {
  return json.contains(key) && !json[key].is_null();
}

std::string shown(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60);
}

int64_t config_size(const Json& config, const char* key, int64_t fallback,
                    const std::string& where) {
  if (!present(config, key)) return fallback;
  const Json& value = config[key];
  if (!value.is_number_integer() || value < 1 || value > kMaxSize) {
    throw_bad_input(
        cat(where, ": ", key, ": expected a whole number from 1 to 2^31, found ", shown(value)));
  }
  return value.get<int64_t>();
}

double config_number(const Json& config, const char* key, double fallback,
                     const std::string& where) {
  if (!present(config, key)) return fallback;
  const Json& value = config[key];
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0) {
    throw_bad_input(cat(where, ": ", key, ": expected a positive number, found ", shown(value)));
  }
  return value.get<double>();
}

double required_number(const Json& config, const char* key, const std::string& where) {
  if (!present(config, key)) throw_bad_input(cat(where, ": ", key, " is missing"));
  return config_number(config, key, 0, where);
}

/// A token id; the first when there are several; -1 for none.
int64_t config_token(const Json& config, const char* key, int64_t fallback,
                     const std::string& where) {
  if (!config.contains(key)) return fallback;
  const Json& value = config[key];
  if (value.is_null() || (value.is_array() && value.empty())) return -1;
  const Json& first = value.is_array() ? value[0] : value;
  if (!first.is_number_integer() || first < -1 || first > kMaxSize)
    throw_bad_input(cat(where, ": ", key, ": expected a token id, found ", shown(value)));
  return first.get<int64_t>();
}

/// The rotary settings, from `rope_parameters` or from `rope_theta` with `rope_scaling`.
Rope read_rope(const Json& config, const Architecture& arch, const std::string& where) {
  Rope rope;
  rope.dims = arch.head_dim;
  const bool newer = present(config, "rope_parameters");
  const char* block = newer ? "rope_parameters" : "rope_scaling";
  const Json& settings = present(config, block) ? config[block] : Json::object();
  const std::string at = cat(where, ": ", block);
  if (!settings.is_object())
    throw_bad_input(cat(at, ": expected an object, found ", shown(settings)));
  rope.theta = config_number(settings, "rope_theta",
                             config_number(config, "rope_theta", 10000.0, where), at);
  for (const Json* holder : {&config, &settings}) {
    if (config_number(*holder, "partial_rotary_factor", 1.0, where) != 1.0)
      throw_unsupported(cat(where, ": partial_rotary_factor other than 1"));
  }
  for (const auto& [key, value] : settings.items()) {
    if (value.is_object())
      throw_unsupported(cat(at, ": settings for each kind of layer (", key, ")"));
  }
  const char* type_key = present(settings, "rope_type") ? "rope_type" : "type";
  if (!present(settings, type_key)) return rope;
  if (!settings[type_key].is_string()) throw_bad_input(cat(at, ": ", type_key, " is not a string"));
  const auto type = settings[type_key].get<std::string>();
  if (type == "default") return rope;
  if (type != "linear" && type != "llama3")
    throw_unsupported(
        cat(at, ": ", type_key, " \"", type, "\"; default, linear and llama3 are implemented"));
  rope.factor = required_number(settings, "factor", at);
  rope.scaling = RopeScaling::kLinear;
  if (type == "linear") return rope;
  rope.scaling = RopeScaling::kLlama3;
  rope.low_freq_factor = required_number(settings, "low_freq_factor", at);
  rope.high_freq_factor = required_number(settings, "high_freq_factor", at);
  // As in transformers, the key of the configuration itself comes before the one among the rotary
  // settings.
  rope.original_context = config_size(
      config, "original_max_position_embeddings",
      config_size(settings, "original_max_position_embeddings", arch.context, at), where);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    throw_bad_input(cat(at, ": high_freq_factor ", rope.high_freq_factor,
                        " is not above low_freq_factor ", rope.low_freq_factor));
  }
  return rope;
}

void write_rope(const Architecture& arch, Json& config) {
  const Rope& rope = arch.rope;
  if (rope.scaling == RopeScaling::kFactors) {
    throw_unsupported(
        "this model's rope factors are known only as numbers (from a GGUF without slmc's keys); "
        "config.json cannot hold them");
  }
  const bool newer = present(config, "rope_parameters");
  Json settings = Json::object();
  if (newer) settings["rope_theta"] = rope.theta;
  if (newer || rope.scaling != RopeScaling::kNone)
    settings["rope_type"] = rope.scaling == RopeScaling::kNone
                                ? "default"
                                : std::string(rope_scaling_name(rope.scaling));
  if (rope.scaling != RopeScaling::kNone) settings["factor"] = rope.factor;
  if (rope.scaling == RopeScaling::kLlama3) {
    settings["low_freq_factor"] = rope.low_freq_factor;
    settings["high_freq_factor"] = rope.high_freq_factor;
    settings["original_max_position_embeddings"] = rope.original_context;
  }
  if (newer) {
    config["rope_parameters"] = settings;
    return;
  }
  config["rope_theta"] = rope.theta;
  config["rope_scaling"] = rope.scaling == RopeScaling::kNone ? Json(nullptr) : settings;
}

/// Writes a token id, leaving a list alone whose first is that id.
void write_token(Json& config, const char* key, int64_t id) {
  if (config.contains(key) && config[key].is_array() && !config[key].empty() &&
      config[key][0] == id)
    return;
  config[key] = id < 0 ? Json(nullptr) : Json(id);
}

}  // namespace

bool config_boolean(const Json& config, const char* key, bool fallback, const std::string& where) {
  if (!present(config, key)) return fallback;
  if (!config[key].is_boolean())
    throw_bad_input(cat(where, ": ", key, ": expected true or false, found ", shown(config[key])));
  return config[key].get<bool>();
}

Architecture decoder_from_config(const Json& config, const DecoderDefaults& defaults,
                                 const std::string& where) {
  if (present(config, "quantization_config")) {
    throw_unsupported(cat(
        where, ": quantization_config: a checkpoint that is quantized already; give the original"));
  }
  if (present(config, "hidden_act") && config["hidden_act"] != "silu" &&
      config["hidden_act"] != "swish") {
    throw_unsupported(
        cat(where, ": hidden_act ", shown(config["hidden_act"]), "; silu is implemented"));
  }
  Architecture arch;
  arch.family = defaults.model_type;
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
  arch.tied = config_boolean(config, "tie_word_embeddings", false, where);
  arch.bos = config_token(config, "bos_token_id", defaults.bos, where);
  arch.eos = config_token(config, "eos_token_id", defaults.eos, where);
  arch.pad = config_token(config, "pad_token_id", -1, where);
  if (!present(config, "head_dim") && arch.hidden % arch.heads != 0) {
    throw_bad_input(cat(where, ": hidden_size ", arch.hidden,
                        " is not a multiple of num_attention_heads ", arch.heads,
                        ", and there is no head_dim"));
  }
  arch.head_dim = config_size(config, "head_dim", arch.hidden / arch.heads, where);
  if (arch.head_dim % 2 != 0)
    throw_bad_input(
        cat(where, ": head_dim ", arch.head_dim, " is odd; rotary embeddings need pairs"));
  if (arch.heads % arch.kv_heads != 0) {
    throw_bad_input(cat(where, ": num_attention_heads ", arch.heads,
                        " is not a multiple of num_key_value_heads ", arch.kv_heads));
  }
  arch.rope = read_rope(config, arch, where);
  return arch;
}

Json decoder_to_config(const Architecture& arch, const Json& original,
                       const DecoderDefaults& defaults) {
  Json config = original.is_object() ? original : Json::object();
  if (!present(config, "architectures")) config["architectures"] = {defaults.hf_architecture};
  config["model_type"] = defaults.model_type;
  config["hidden_size"] = arch.hidden;
  config["intermediate_size"] = arch.ffn;
  config["num_hidden_layers"] = arch.layers;
  config["num_attention_heads"] = arch.heads;
  config["num_key_value_heads"] = arch.kv_heads;
  if (present(config, "head_dim") || arch.head_dim * arch.heads != arch.hidden)
    config["head_dim"] = arch.head_dim;
  config["vocab_size"] = arch.vocab;
  config["max_position_embeddings"] = arch.context;
  config["rms_norm_eps"] = arch.norm_eps;
  config["hidden_act"] = "silu";
  config["tie_word_embeddings"] = arch.tied;
  write_token(config, "bos_token_id", arch.bos);
  write_token(config, "eos_token_id", arch.eos);
  if (arch.pad >= 0 || config.contains("pad_token_id"))
    write_token(config, "pad_token_id", arch.pad);
  write_rope(arch, config);
  if (present(config, "layer_types"))
    config["layer_types"] =
        std::vector<std::string>(static_cast<size_t>(arch.layers), "full_attention");
  return config;
}

}  // namespace slmc
