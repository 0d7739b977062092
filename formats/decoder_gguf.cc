// GGUF keys of the decoder families.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/decoder_family.h"
#include "formats/model.h"

namespace slmc {
namespace {

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

/// A vector of f32 that a GGUF holds beside the weights; empty when it is not there.
std::vector<float> read_vector(const GgufFile& file, const char* name, const std::string& where) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr) return {};
  if (tensor->dtype != DType::kF32)
    throw_bad_input(cat(where, ": ", name, ": expected f32, found ", dtype_name(tensor->dtype)));
  std::vector<float> values(tensor->bytes / 4);
  decode_rows({file.file->data() + tensor->offset,
               DType::kF32,
               {static_cast<int64_t>(values.size())},
               file.file},
              0, 1, values.data());
  return values;
}

void read_longrope(const GgufFile& file, const std::string& prefix, const std::string& where,
                   Rope& rope) {
  rope.short_factors = read_vector(file, "rope_factors_short.weight", where);
  rope.long_factors = read_vector(file, "rope_factors_long.weight", where);
  if (rope.short_factors.empty() && rope.long_factors.empty()) return;
  rope.scaling = RopeScaling::kLongrope;
  rope.original_context =
      gguf_size(file.keys, prefix + "rope.scaling.original_context_length", where);
  rope.attention_factor =
      shortest(gguf_positive(file.keys, prefix + "rope.scaling.attn_factor", 1.0, where));
  for (const std::vector<float>* factors : {&rope.short_factors, &rope.long_factors}) {
    if (static_cast<int64_t>(factors->size()) != rope.dims / 2) {
      throw_bad_input(cat(where, ": rope_factors_short and rope_factors_long: expected ",
                          rope.dims / 2, " values, found ", factors->size()));
    }
    for (const float factor : *factors) {
      if (!(factor > 0) || !std::isfinite(factor))
        throw_bad_input(cat(where, ": rope factors: expected positive numbers, found ", factor));
    }
  }
}

void read_rope(const GgufFile& file, const std::string& prefix, const std::string& where,
               Rope& rope) {
  const GgufKeys& keys = file.keys;
  rope.theta = shortest(gguf_positive(keys, prefix + "rope.freq_base", 10000.0, where));
  const std::string type = keys.string_or(prefix + "rope.scaling.type", "none", where);
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor = shortest(gguf_positive(keys, prefix + "rope.scaling.factor", 1.0, where));
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.factor = shortest(gguf_positive(keys, prefix + "rope.scaling.factor", 1.0, where));
    rope.original_context = gguf_size(keys, prefix + "rope.scaling.original_context_length", where);
    // llama.cpp multiplies its own factor by the key's.
    rope.attention_factor = yarn_attention_factor(rope.factor) *
                            gguf_positive(keys, prefix + "rope.scaling.attn_factor", 1.0, where);
  } else if (type != "none" && type != "longrope") {
    throw_unsupported(cat(where, ": key ", prefix, "rope.scaling.type: \"", type,
                          "\"; none, linear, yarn and longrope are implemented"));
  }
  if (type == "none" || type == "longrope") read_longrope(file, prefix, where, rope);
  const std::vector<float> factors = read_vector(file, "rope_freqs.weight", where);
  if (!factors.empty()) adopt_rope_factors(rope, factors, where);
}

void check_heads(const Architecture& arch, const std::string& where) {
  if (arch.head_dim < 2 || arch.head_dim % 2 != 0 || arch.head_dim > 65536)
    throw_bad_input(cat(where, ": attention heads of ", arch.head_dim, " dimensions"));
  if (arch.heads % arch.kv_heads != 0)
    throw_bad_input(cat(where, ": ", arch.heads, " attention heads do not divide by ",
                        arch.kv_heads, " key and value heads"));
  if (arch.rope.dims < 2 || arch.rope.dims % 2 != 0 || arch.rope.dims > arch.head_dim)
    throw_bad_input(cat(where, ": rope.dimension_count ", arch.rope.dims, " of ", arch.head_dim));
}

}  // namespace

int64_t gguf_size(const GgufKeys& keys, const std::string& key, const std::string& where) {
  const int64_t value = keys.integer(key, where);
  if (value < 1 || value > (int64_t{1} << 31))
    throw_bad_input(cat(where, ": key ", key, ": expected 1 to 2^31, found ", value));
  return value;
}

double gguf_positive(const GgufKeys& keys, const std::string& key, double fallback,
                     const std::string& where) {
  const double value = keys.number_or(key, fallback, where);
  if (!std::isfinite(value) || value <= 0)
    throw_bad_input(cat(where, ": key ", key, ": expected a positive number, found ", value));
  return value;
}

Architecture decoder_from_gguf(const GgufFile& file, const std::string& architecture,
                               const std::string& where) {
  const GgufKeys& keys = file.keys;
  const std::string prefix = architecture + ".";
  Architecture arch;
  arch.family = architecture;
  arch.layers = gguf_size(keys, prefix + "block_count", where);
  arch.hidden = gguf_size(keys, prefix + "embedding_length", where);
  arch.ffn = gguf_size(keys, prefix + "feed_forward_length", where);
  arch.heads = gguf_size(keys, prefix + "attention.head_count", where);
  const bool grouped = keys.has(prefix + "attention.head_count_kv");
  arch.kv_heads = grouped ? gguf_size(keys, prefix + "attention.head_count_kv", where) : arch.heads;
  arch.context = gguf_size(keys, prefix + "context_length", where);
  const bool layer_norm = keys.has(prefix + "attention.layer_norm_epsilon");
  arch.norm = layer_norm ? NormKind::kLayer : NormKind::kRms;
  arch.norm_eps = shortest(gguf_positive(
      keys,
      prefix + (layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"),
      0.0, where));
  arch.head_dim = keys.integer_or(prefix + "attention.key_length", arch.hidden / arch.heads, where);
  if (keys.integer_or(prefix + "attention.value_length", arch.head_dim, where) != arch.head_dim)
    throw_unsupported(cat(where, ": attention.value_length differs from key_length"));
  arch.rope.dims = keys.integer_or(prefix + "rope.dimension_count", arch.head_dim, where);
  check_heads(arch, where);
  if (keys.integer_or(prefix + "expert_count", 0, where) > 0)
    throw_unsupported(cat(where, ": a mixture of experts"));
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2)
    throw_bad_input(cat(where, ": tensor token_embd.weight is missing or not a matrix"));
  arch.vocab = embedding->shape[0];
  arch.qkv_bias = file.find("blk.0.attn_q.bias") != nullptr;
  arch.output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  arch.mlp_bias = file.find("blk.0.ffn_up.bias") != nullptr;
  arch.tied = file.find("output.weight") == nullptr;
  arch.bos = keys.integer_or("tokenizer.ggml.bos_token_id", -1, where);
  arch.eos = keys.integer_or("tokenizer.ggml.eos_token_id", -1, where);
  arch.pad = keys.integer_or("tokenizer.ggml.padding_token_id", -1, where);
  read_rope(file, prefix, where, arch.rope);
  return arch;
}

void decoder_to_gguf(const Architecture& arch, GgufKeys& keys) {
  const std::string prefix = gguf_architecture(family_by_name(arch.family)) + ".";
  const auto set = [&keys, &prefix](const char* key, int64_t value) {
    keys.set(prefix + key, static_cast<uint32_t>(value));
  };
  const auto number = [&keys, &prefix](const char* key, double value) {
    keys.set(prefix + key, static_cast<float>(value));
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
  number(arch.norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                     : "attention.layer_norm_epsilon",
         arch.norm_eps);
  const Rope& rope = arch.rope;
  if (rope.dims == 0) return;
  set("rope.dimension_count", rope.dims);
  number("rope.freq_base", rope.theta);
  if (rope.scaling == RopeScaling::kLinear || rope.scaling == RopeScaling::kYarn) {
    keys.set(prefix + "rope.scaling.type", std::string(rope_scaling_name(rope.scaling)));
    number("rope.scaling.factor", rope.factor);
  }
  if (rope.scaling == RopeScaling::kYarn) {
    set("rope.scaling.original_context_length", rope.original_context);
    const double usual = yarn_attention_factor(rope.factor);
    if (static_cast<float>(rope.attention_factor) != static_cast<float>(usual))
      number("rope.scaling.attn_factor", rope.attention_factor / usual);
  }
  if (rope.scaling == RopeScaling::kLongrope) {
    set("rope.scaling.original_context_length", rope.original_context);
    number("rope.scaling.attn_factor", rope.attention_factor);
  }
}

}  // namespace slmc
