#include "compress/runtime/layer_weights.h"

#include "compress/core/text.h"

namespace slmc {

PackedMatrix read_matrix(const WeightSource& source, const std::string& name) {
  PackedMatrix matrix(source.view(name), name);
  source.release(name);
  return matrix;
}

std::vector<float> read_vector(const WeightSource& source, const std::string& name) {
  const TensorView view = source.view(name);
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  source.release(name);
  return values;
}

Linear read_linear(const WeightSource& source, const std::string& name, bool bias) {
  Linear linear;
  linear.name = name + ".weight";
  linear.weight = read_matrix(source, name + ".weight");
  if (bias) linear.bias = read_vector(source, name + ".bias");
  return linear;
}

Norm read_norm(const WeightSource& source, const std::string& name) {
  Norm norm;
  norm.weight = read_vector(source, name + ".weight");
  const auto offset = static_cast<float>(source.arch().norm_offset);
  if (offset != 0.0f) {
    for (float& weight : norm.weight) weight = offset + weight;
  }
  if (source.arch().norm == NormKind::kLayer) norm.bias = read_vector(source, name + ".bias");
  return norm;
}

namespace {

BranchAdapter read_adapter(const WeightSource& source, const std::string& name) {
  if (side_shape(source).bottleneck.width == 0 || !source.has(name + "_down.weight")) return {};
  return {.down = read_linear(source, name + "_down", true),
          .up = read_linear(source, name + "_up", true)};
}

}  // namespace

Layer read_layer(const WeightSource& source, int64_t index, Branch branch) {
  const Architecture& arch = source.arch();
  const std::string prefix = cat("blk.", index, ".");
  Layer layer;
  if (branch != Branch::kFfn) {
    layer.attention = read_norm(source, prefix + (arch.encoder ? "attn_output_norm" : "attn_norm"));
    if (arch.qk_norm) {
      layer.query_norm = read_norm(source, prefix + "attn_q_norm");
      layer.key_norm = read_norm(source, prefix + "attn_k_norm");
    }
    if (arch.branch_norms)
      layer.after_attention = read_norm(source, prefix + "post_attention_norm");
    layer.query = read_linear(source, prefix + "attn_q", arch.qkv_bias);
    layer.key = read_linear(source, prefix + "attn_k", arch.qkv_bias);
    layer.value = read_linear(source, prefix + "attn_v", arch.qkv_bias);
    layer.output = read_linear(source, prefix + "attn_output", arch.output_bias);
    layer.attention_adapter = read_adapter(source, prefix + "attn_adapter");
  }
  if (branch != Branch::kAttention) {
    layer.ffn_norm = read_norm(source, prefix + (arch.encoder ? "layer_output_norm" : "ffn_norm"));
    if (arch.branch_norms) layer.after_ffn = read_norm(source, prefix + "post_ffw_norm");
    if (arch.gated) layer.gate = read_linear(source, prefix + "ffn_gate", arch.mlp_bias);
    layer.up = read_linear(source, prefix + "ffn_up", arch.mlp_bias);
    layer.down = read_linear(source, prefix + "ffn_down", arch.mlp_bias);
    layer.ffn_adapter = read_adapter(source, prefix + "ffn_adapter");
  }
  return layer;
}

std::string logits_weight_name(const Architecture& arch) {
  return arch.tied ? "token_embd.weight" : "output.weight";
}

}  // namespace slmc
