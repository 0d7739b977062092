// GGUF keys and tensor names of the decoder families.
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/decoder_family.h"
#include "formats/model.h"

namespace slmc {
namespace {

int64_t positive(const GgufKeys& keys, const std::string& key, const std::string& where) {
  const int64_t value = keys.integer(key, where);
  if (value < 1 || value > (int64_t{1} << 31))
    throw_bad_input(cat(where, ": key ", key, ": expected 1 to 2^31, found ", value));
  return value;
}

double positive_number(const GgufKeys& keys, const std::string& key, double fallback,
                       const std::string& where) {
  const double value = keys.number_or(key, fallback, where);
  if (!std::isfinite(value) || value <= 0)
    throw_bad_input(cat(where, ": key ", key, ": expected a positive number, found ", value));
  return value;
}

/// A float key holds 0.00001 as the nearest float32; the config it came from said 1e-5. The
/// shortest decimal with that float is meant.
double shortest(double value) {
  for (int digits = 1; digits < 9; ++digits) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*e", digits - 1, value);
    const double candidate = std::strtod(text, nullptr);
    if (static_cast<float>(candidate) == static_cast<float>(value)) return candidate;
  }
  return value;
}

void read_rope(const GgufFile& file, const std::string& prefix, const std::string& where,
               Rope& rope) {
  const GgufKeys& keys = file.keys;
  rope.theta = shortest(positive_number(keys, prefix + "rope.freq_base", 10000.0, where));
  const std::string type = keys.string_or(
      "slmc.rope.type", keys.string_or(prefix + "rope.scaling.type", "none", where), where);
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor = shortest(positive_number(keys, prefix + "rope.scaling.factor", 1.0, where));
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
    rope.factor = positive_number(keys, "slmc.rope.factor", 0.0, where);
    rope.low_freq_factor = positive_number(keys, "slmc.rope.low_freq_factor", 0.0, where);
    rope.high_freq_factor = positive_number(keys, "slmc.rope.high_freq_factor", 0.0, where);
    rope.original_context = positive(keys, "slmc.rope.original_context", where);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      throw_bad_input(
          cat(where, ": slmc.rope.high_freq_factor is not above slmc.rope.low_freq_factor"));
  } else if (type != "none") {
    throw_unsupported(cat(where, ": key ", prefix, "rope.scaling.type: \"", type,
                          "\"; none, linear and llama3 are implemented"));
  }
  const GgufTensor* factors = file.find("rope_freqs.weight");
  if (factors == nullptr) return;
  if (factors->dtype != DType::kF32)
    throw_bad_input(
        cat(where, ": rope_freqs.weight: expected f32, found ", dtype_name(factors->dtype)));
  std::vector<float> values(factors->bytes / 4);
  decode_rows({file.file->data() + factors->offset,
               DType::kF32,
               {static_cast<int64_t>(values.size())},
               file.file},
              0, 1, values.data());
  adopt_rope_factors(rope, values, where);
}

struct Part {
  const char* name;
  const char* hf_name;
};

}  // namespace

Architecture decoder_from_gguf(const GgufFile& file, const std::string& family,
                               const std::string& where) {
  const GgufKeys& keys = file.keys;
  const std::string prefix = family + ".";
  Architecture arch;
  arch.family = family;
  arch.layers = positive(keys, prefix + "block_count", where);
  arch.hidden = positive(keys, prefix + "embedding_length", where);
  arch.ffn = positive(keys, prefix + "feed_forward_length", where);
  arch.heads = positive(keys, prefix + "attention.head_count", where);
  const bool grouped = keys.has(prefix + "attention.head_count_kv");
  arch.kv_heads = grouped ? positive(keys, prefix + "attention.head_count_kv", where) : arch.heads;
  arch.context = positive(keys, prefix + "context_length", where);
  arch.norm_eps =
      shortest(positive_number(keys, prefix + "attention.layer_norm_rms_epsilon", 0.0, where));
  arch.head_dim = keys.integer_or(prefix + "attention.key_length", arch.hidden / arch.heads, where);
  if (keys.integer_or(prefix + "attention.value_length", arch.head_dim, where) != arch.head_dim)
    throw_unsupported(cat(where, ": attention.value_length differs from key_length"));
  if (arch.head_dim < 2 || arch.head_dim % 2 != 0 || arch.head_dim > 65536)
    throw_bad_input(cat(where, ": attention heads of ", arch.head_dim, " dimensions"));
  if (arch.heads % arch.kv_heads != 0)
    throw_bad_input(cat(where, ": ", arch.heads, " attention heads do not divide by ",
                        arch.kv_heads, " key and value heads"));
  arch.rope.dims = keys.integer_or(prefix + "rope.dimension_count", arch.head_dim, where);
  if (arch.rope.dims != arch.head_dim)
    throw_unsupported(cat(where, ": rope.dimension_count ", arch.rope.dims, " of ", arch.head_dim,
                          " (partial rotary embedding)"));
  if (keys.integer_or(prefix + "expert_count", 0, where) > 0)
    throw_unsupported(cat(where, ": a mixture of experts"));
  if (keys.integer_or(prefix + "attention.sliding_window", 0, where) > 0)
    throw_unsupported(cat(where, ": attention.sliding_window"));
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2)
    throw_bad_input(cat(where, ": tensor token_embd.weight is missing or not a matrix"));
  arch.vocab = embedding->shape[0];
  arch.qkv_bias = file.find("blk.0.attn_q.bias") != nullptr;
  arch.output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  arch.mlp_bias = file.find("blk.0.ffn_gate.bias") != nullptr;
  arch.tied = file.find("output.weight") == nullptr;
  arch.bos = keys.integer_or("tokenizer.ggml.bos_token_id", -1, where);
  arch.eos = keys.integer_or("tokenizer.ggml.eos_token_id", -1, where);
  arch.pad = keys.integer_or("tokenizer.ggml.padding_token_id", -1, where);
  read_rope(file, prefix, where, arch.rope);
  return arch;
}

void decoder_to_gguf(const Architecture& arch, GgufKeys& keys) {
  const std::string prefix = arch.family + ".";
  const auto set = [&keys, &prefix](const char* key, int64_t value) {
    keys.set(prefix + key, static_cast<uint32_t>(value));
  };
  set("vocab_size", arch.vocab);
  set("context_length", arch.context);
  set("embedding_length", arch.hidden);
  set("block_count", arch.layers);
  set("feed_forward_length", arch.ffn);
  set("attention.head_count", arch.heads);
  set("attention.head_count_kv", arch.kv_heads);
  set("attention.key_length", arch.head_dim);
  set("attention.value_length", arch.head_dim);
  keys.set(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(arch.norm_eps));
  set("rope.dimension_count", arch.rope.dims);
  keys.set(prefix + "rope.freq_base", static_cast<float>(arch.rope.theta));
  if (arch.rope.scaling == RopeScaling::kLinear) {
    keys.set(prefix + "rope.scaling.type", std::string("linear"));
    keys.set(prefix + "rope.scaling.factor", static_cast<float>(arch.rope.factor));
  }
  if (arch.rope.scaling == RopeScaling::kLlama3) {
    keys.set("slmc.rope.type", std::string("llama3"));
    keys.set("slmc.rope.factor", arch.rope.factor);
    keys.set("slmc.rope.low_freq_factor", arch.rope.low_freq_factor);
    keys.set("slmc.rope.high_freq_factor", arch.rope.high_freq_factor);
    keys.set("slmc.rope.original_context", static_cast<uint64_t>(arch.rope.original_context));
  }
}

std::vector<TensorSpec> decoder_tensors(const Architecture& arch, GgufRows rows) {
  std::vector<TensorSpec> tensors;
  const int64_t q = arch.heads * arch.head_dim;
  const int64_t kv = arch.kv_heads * arch.head_dim;
  tensors.push_back({"token_embd.weight", "model.embed_tokens.weight", {arch.vocab, arch.hidden}});
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    const auto add = [&](Part part, const char* kind, std::vector<int64_t> shape,
                         int64_t heads = 0) {
      tensors.push_back({cat("blk.", layer, ".", part.name, ".", kind),
                         cat("model.layers.", layer, ".", part.hf_name, ".", kind),
                         std::move(shape), heads > 0 ? rows : GgufRows::kSame, heads});
    };
    const auto linear = [&](Part part, int64_t out, int64_t in, bool bias, int64_t heads = 0) {
      add(part, "weight", {out, in}, heads);
      if (bias) add(part, "bias", {out}, heads);
    };
    add({"attn_norm", "input_layernorm"}, "weight", {arch.hidden});
    linear({"attn_q", "self_attn.q_proj"}, q, arch.hidden, arch.qkv_bias, arch.heads);
    linear({"attn_k", "self_attn.k_proj"}, kv, arch.hidden, arch.qkv_bias, arch.kv_heads);
    linear({"attn_v", "self_attn.v_proj"}, kv, arch.hidden, arch.qkv_bias);
    linear({"attn_output", "self_attn.o_proj"}, arch.hidden, q, arch.output_bias);
    add({"ffn_norm", "post_attention_layernorm"}, "weight", {arch.hidden});
    linear({"ffn_gate", "mlp.gate_proj"}, arch.ffn, arch.hidden, arch.mlp_bias);
    linear({"ffn_up", "mlp.up_proj"}, arch.ffn, arch.hidden, arch.mlp_bias);
    linear({"ffn_down", "mlp.down_proj"}, arch.hidden, arch.ffn, arch.mlp_bias);
  }
  tensors.push_back({"output_norm.weight", "model.norm.weight", {arch.hidden}});
  if (!arch.tied) tensors.push_back({"output.weight", "lm_head.weight", {arch.vocab, arch.hidden}});
  return tensors;
}

}  // namespace slmc
