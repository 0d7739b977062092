#include "formats/architecture.h"

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/difference.h"

namespace slmc {

int64_t layer_window(const Architecture& arch, int64_t layer) {
  return arch.windowed.empty() || arch.windowed[static_cast<size_t>(layer)] != 0 ? arch.window : 0;
}

const Rope& layer_rope(const Architecture& arch, int64_t layer) {
  const bool local =
      arch.local_rope && !arch.windowed.empty() && arch.windowed[static_cast<size_t>(layer)] != 0;
  return local ? *arch.local_rope : arch.rope;
}

double query_scale(const Architecture& arch) {
  return arch.attention_scale > 0 ? arch.attention_scale
                                  : 1.0 / std::sqrt(static_cast<double>(arch.head_dim));
}

Architecture keep_layers(const Architecture& arch, const std::vector<int64_t>& layers) {
  Architecture kept = arch;
  kept.layers = static_cast<int64_t>(layers.size());
  kept.windowed.clear();
  kept.kv_scales.clear();
  for (const int64_t layer : layers) {
    const auto at = static_cast<size_t>(layer);
    if (!arch.windowed.empty()) kept.windowed.push_back(arch.windowed.at(at));
    if (arch.kv_scales.empty()) continue;
    kept.kv_scales.push_back(arch.kv_scales.at(2 * at));
    kept.kv_scales.push_back(arch.kv_scales.at(2 * at + 1));
  }
  return kept;
}

std::string_view activation_name(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return "gelu_tanh";
    case Activation::kRelu:
      return "relu";
    case Activation::kTanh:
      return "tanh";
  }
  return "silu";
}

std::string architecture_difference(const Architecture& a, const Architecture& b) {
  Differences found;
  found.add("layers", a.layers, b.layers);
  found.add("hidden", a.hidden, b.hidden);
  found.add("ffn", a.ffn, b.ffn);
  found.add("heads", a.heads, b.heads);
  found.add("kv_heads", a.kv_heads, b.kv_heads);
  found.add("head_dim", a.head_dim, b.head_dim);
  found.add("vocab", a.vocab, b.vocab);
  found.add("context", a.context, b.context);
  found.add("norm", static_cast<int>(a.norm), static_cast<int>(b.norm));
  found.add("norm_eps", a.norm_eps, b.norm_eps);
  found.add("norm_offset", a.norm_offset, b.norm_offset);
  found.add("qk_norm", a.qk_norm, b.qk_norm);
  found.add("branch_norms", a.branch_norms, b.branch_norms);
  found.add("activation", activation_name(a.activation), activation_name(b.activation));
  found.add("gated", a.gated, b.gated);
  found.add("qkv_bias", a.qkv_bias, b.qkv_bias);
  found.add("output_bias", a.output_bias, b.output_bias);
  found.add("mlp_bias", a.mlp_bias, b.mlp_bias);
  found.add("tied", a.tied, b.tied);
  found.add("embedding_scale", a.embedding_scale, b.embedding_scale);
  found.add("attention_scale", query_scale(a), query_scale(b));
  found.add("attention_cap", a.attention_cap, b.attention_cap);
  found.add("final_cap", a.final_cap, b.final_cap);
  if (!found.first().empty()) return found.first();
  for (int64_t layer = 0; layer < a.layers; ++layer) {
    const std::string prefix = cat("layer ", layer, ": ");
    Differences of_layer(prefix);
    of_layer.add("window", layer_window(a, layer), layer_window(b, layer));
    of_layer.add_text(
        rope_difference(layer_rope(a, layer), layer_rope(b, layer), prefix + "rope."));
    if (!of_layer.first().empty()) return of_layer.first();
  }
  found.add_values("kv_scales", a.kv_scales == b.kv_scales);
  found.add("learned_positions", a.learned_positions, b.learned_positions);
  found.add("encoder", a.encoder, b.encoder);
  found.add("token_types", a.token_types, b.token_types);
  found.add("head", static_cast<int>(a.head), static_cast<int>(b.head));
  if (a.head == Head::kClassifier) found.add("classes", a.classes, b.classes);
  if (a.head == Head::kClassifier || a.head == Head::kMasked) {
    found.add("head_activation", activation_name(a.head_activation),
              activation_name(b.head_activation));
  }
  if (a.head == Head::kStates)
    found.add("pooling", static_cast<int>(a.pooling), static_cast<int>(b.pooling));
  return found.first();
}

}  // namespace slmc
