// Single keys of a config.json.
#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;

struct ActivationSpelling {
  const char* text;
  Activation activation;
};
constexpr ActivationSpelling kActivations[] = {
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"gelu", Activation::kGelu},
    {"gelu_python", Activation::kGelu},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_python_tanh", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
};

}  // namespace

bool config_has(const Json& config, const char* key) {
  return config.contains(key) && !config[key].is_null();
}

std::string shown(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60);
}

int64_t config_size(const Json& config, const char* key, int64_t fallback,
                    const std::string& where) {
  if (!config_has(config, key)) return fallback;
  const Json& value = config[key];
  if (!value.is_number_integer() || value < 1 || value > kMaxSize) {
    throw_bad_input(
        cat(where, ": ", key, ": expected a whole number from 1 to 2^31, found ", shown(value)));
  }
  return value.get<int64_t>();
}

double config_number(const Json& config, const char* key, double fallback,
                     const std::string& where) {
  if (!config_has(config, key)) return fallback;
  const Json& value = config[key];
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0) {
    throw_bad_input(cat(where, ": ", key, ": expected a positive number, found ", shown(value)));
  }
  return value.get<double>();
}

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

void write_token(Json& config, const char* key, int64_t id) {
  if (config.contains(key) && config[key].is_array() && !config[key].empty() &&
      config[key][0] == id)
    return;
  config[key] = id < 0 ? Json(nullptr) : Json(id);
}

bool config_boolean(const Json& config, const char* key, bool fallback, const std::string& where) {
  if (!config_has(config, key)) return fallback;
  if (!config[key].is_boolean())
    throw_bad_input(cat(where, ": ", key, ": expected true or false, found ", shown(config[key])));
  return config[key].get<bool>();
}

void config_require(const Json& config, const char* key, const Json& implemented,
                    const std::string& where) {
  if (!config_has(config, key) || config[key] == implemented) return;
  throw_unsupported(
      cat(where, ": ", key, " ", shown(config[key]), "; ", shown(implemented), " is implemented"));
}

Activation activation_from_config(const Json& config, const std::string& key,
                                  const std::string& fallback, const std::string& where) {
  const std::string text = config_has(config, key.c_str()) && config[key].is_string()
                               ? config[key].get<std::string>()
                               : fallback;
  if (config_has(config, key.c_str()) && !config[key].is_string())
    throw_bad_input(cat(where, ": ", key, ": expected a name, found ", shown(config[key])));
  for (const ActivationSpelling& known : kActivations) {
    if (text == known.text) return known.activation;
  }
  throw_unsupported(cat(where, ": ", key, " \"", text.substr(0, 60),
                        "\"; silu, gelu, gelu_new, gelu_pytorch_tanh and relu are implemented"));
}

std::string activation_for_config(Activation activation, const Json& original,
                                  const std::string& key) {
  if (original.contains(key) && original[key].is_string()) {
    for (const ActivationSpelling& known : kActivations) {
      if (original[key] == known.text && known.activation == activation) return known.text;
    }
  }
  if (key == "activation_function" && activation == Activation::kGeluTanh) return "gelu_new";
  for (const ActivationSpelling& known : kActivations) {
    if (known.activation == activation) return known.text;
  }
  return "silu";
}

std::vector<uint8_t> read_layer_types(const Json& config, int64_t layers,
                                      const std::string& where) {
  if (!config_has(config, "layer_types")) return {};
  const Json& types = config["layer_types"];
  if (!types.is_array() || static_cast<int64_t>(types.size()) < layers)
    throw_bad_input(cat(where, ": layer_types: expected ", layers, " names, found ", shown(types)));
  std::vector<uint8_t> windowed;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const Json& kind = types[static_cast<size_t>(layer)];
    if (kind != "full_attention" && kind != "sliding_attention") {
      throw_unsupported(cat(where, ": layer_types: ", shown(kind),
                            "; full_attention and sliding_attention are implemented"));
    }
    windowed.push_back(kind == "sliding_attention" ? 1 : 0);
  }
  return windowed;
}

Json layer_types(const Architecture& arch) {
  Json types = Json::array();
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    const bool sliding =
        arch.windowed.empty() ? arch.window > 0 : arch.windowed[static_cast<size_t>(layer)] != 0;
    types.push_back(sliding ? "sliding_attention" : "full_attention");
  }
  return types;
}

void config_require_like_layers(const Json& config, const std::string& where) {
  if (!config_has(config, "layer_types")) return;
  const Json& types = config["layer_types"];
  if (!types.is_array()) throw_bad_input(cat(where, ": layer_types: expected names"));
  for (const Json& kind : types) {
    if (kind != types[0]) {
      throw_unsupported(cat(where, ": layer_types: ", shown(kind), " beside ", shown(types[0]),
                            "; this class has one kind of layer"));
    }
  }
}

void read_qwen_window(const Json& config, Architecture& arch, const std::string& where) {
  const bool none = config.contains("sliding_window") && config["sliding_window"].is_null();
  if (config_boolean(config, "use_sliding_window", false, where) && !none)
    arch.window = config_size(config, "sliding_window", 4096, where);
  arch.windowed = read_layer_types(config, arch.layers, where);
  if (arch.windowed.empty() && arch.window > 0) {
    const int64_t first = config.value("max_window_layers", Json()) == 0
                              ? 0
                              : config_size(config, "max_window_layers", 28, where);
    for (int64_t layer = 0; layer < arch.layers; ++layer)
      arch.windowed.push_back(layer >= first ? 1 : 0);
  }
  const bool some = std::find(arch.windowed.begin(), arch.windowed.end(), 1) != arch.windowed.end();
  if (some && arch.window == 0) {
    throw_bad_input(cat(where,
                        ": layer_types: sliding_attention, but use_sliding_window and "
                        "sliding_window give no window"));
  }
  if (!some) arch.window = 0;
  if (!some) arch.windowed.clear();
}

void write_qwen_window(const Architecture& arch, Json& config) {
  if (arch.window == 0 && !config.contains("use_sliding_window")) return;
  config["use_sliding_window"] = arch.window > 0;
  if (arch.window == 0) return;
  config["sliding_window"] = arch.window;
  config["layer_types"] = layer_types(arch);
}

void refuse_rope_tensors(const Architecture& arch, const std::string& architecture) {
  if (rope_tensors(arch.rope).empty()) return;
  throw_unsupported(cat("llama.cpp applies no rope_freqs to ", architecture,
                        ", so a GGUF cannot carry ", rope_scaling_name(arch.rope.scaling),
                        " rope scaling; write a safetensors folder"));
}

std::vector<std::string> window_notes(const Architecture& arch) {
  if (arch.window == 0 || arch.window >= arch.context) return {};
  return {cat("llama.cpp does not apply this model's attention window of ", arch.window,
              " positions: beyond that many tokens it computes something else than slmc and "
              "transformers.")};
}

}  // namespace slmc
