// Tensor names and layouts of the decoder families.
#include "compress/core/text.h"
#include "formats/decoder_family.h"

namespace slmc {
namespace {

/// What a part of a block is: its shape, whether it has a weight and a bias.
struct PartShape {
  std::vector<int64_t> shape;
  bool bias = false;
  bool there = true;
};

PartShape part_shape(const Architecture& arch, const std::string& part) {
  const int64_t q = arch.heads * arch.head_dim, kv = arch.kv_heads * arch.head_dim;
  const bool norm_bias = arch.norm == NormKind::kLayer;
  if (part == "attn_q") return {{q, arch.hidden}, arch.qkv_bias};
  if (part == "attn_k" || part == "attn_v") return {{kv, arch.hidden}, arch.qkv_bias};
  if (part == "attn_output") return {{arch.hidden, q}, arch.output_bias};
  if (part == "attn_q_norm" || part == "attn_k_norm") return {{arch.head_dim}, false, arch.qk_norm};
  if (part == "ffn_gate") return {{arch.ffn, arch.hidden}, arch.mlp_bias, arch.gated};
  if (part == "ffn_up") return {{arch.ffn, arch.hidden}, arch.mlp_bias};
  if (part == "ffn_down") return {{arch.hidden, arch.ffn}, arch.mlp_bias};
  if (part == "post_attention_norm" || part == "post_ffw_norm")
    return {{arch.hidden}, norm_bias, arch.branch_norms};
  return {{arch.hidden}, norm_bias};  // attn_norm, ffn_norm and an encoder's norms.
}

}  // namespace

const DecoderNames& llama_names() {
  static const DecoderNames names = {.parts = {{"attn_norm", "input_layernorm"},
                                               {"attn_q", "self_attn.q_proj"},
                                               {"attn_k", "self_attn.k_proj"},
                                               {"attn_v", "self_attn.v_proj"},
                                               {"attn_q_norm", "self_attn.q_norm"},
                                               {"attn_k_norm", "self_attn.k_norm"},
                                               {"attn_output", "self_attn.o_proj"},
                                               {"ffn_norm", "post_attention_layernorm"},
                                               {"ffn_gate", "mlp.gate_proj"},
                                               {"ffn_up", "mlp.up_proj"},
                                               {"ffn_down", "mlp.down_proj"}}};
  return names;
}

std::vector<TensorSpec> decoder_tensors(const Architecture& arch, const DecoderNames& names) {
  std::vector<TensorSpec> tensors;
  const auto add = [&](const std::string& name, const std::string& hf, std::vector<int64_t> shape) {
    tensors.push_back({name, std::move(shape), {.name = hf}, {.name = name}});
    if (name.ends_with("norm.weight"))
      tensors.back().gguf.shift = static_cast<float>(arch.norm_offset);
  };
  const auto add_norm = [&](const std::string& name, const std::string& hf) {
    add(name + ".weight", hf + ".weight", {arch.hidden});
    if (arch.norm == NormKind::kLayer) add(name + ".bias", hf + ".bias", {arch.hidden});
  };
  add("token_embd.weight", names.embedding + ".weight", {arch.vocab, arch.hidden});
  if (arch.learned_positions)
    add("position_embd.weight", names.positions + ".weight", {arch.context, arch.hidden});
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    const std::string prefix = cat("blk.", layer, "."), hf_prefix = cat(names.layers, layer, ".");
    for (const BlockPart& part : names.parts) {
      const PartShape is = part_shape(arch, part.name);
      if (!is.there) continue;
      const bool turned = part.name == "attn_q" || part.name == "attn_k";
      for (const char* kind : {".weight", ".bias"}) {
        const bool bias = kind[1] == 'b';
        if (bias && !is.bias) continue;
        add(prefix + part.name + kind, hf_prefix + part.hf + kind,
            bias ? std::vector<int64_t>{is.shape[0]} : is.shape);
        TensorSpec& spec = tensors.back();
        if (!part.gguf.empty()) spec.gguf.name = prefix + part.gguf + kind;
        spec.hf.transposed = names.conv1d && spec.shape.size() == 2;
        if (turned && names.query_order != GgufRows::kSame) {
          spec.gguf.order = names.query_order;
          spec.gguf.heads = part.name == "attn_q" ? arch.heads : arch.kv_heads;
        }
      }
    }
  }
  add_norm("output_norm", names.norm);
  if (!arch.tied) add("output.weight", names.head + ".weight", {arch.vocab, arch.hidden});
  fuse_shared_names(tensors);
  return tensors;
}

std::vector<TensorSpec> rope_paired_tensors(const Architecture& arch) {
  DecoderNames names = llama_names();
  names.query_order = GgufRows::kRopePairs;
  return decoder_tensors(arch, names);
}

}  // namespace slmc
