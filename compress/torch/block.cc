#include "compress/torch/block.h"

#include <cmath>
#include <initializer_list>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/products.h"

namespace slmc::libtorch {
namespace {

/// Cosine and sine, [context, dims / 2], for sequences declared to hold `context` positions.
std::pair<at::Tensor, at::Tensor> rotation_tables(const Rope& rope, int64_t context,
                                                  const at::Device& device) {
  const std::vector<float> frequencies = rope_inverse_frequencies(rope, context);
  const auto half = static_cast<int64_t>(frequencies.size());
  const auto factor = static_cast<float>(rope.attention_factor);
  at::Tensor cosine = at::empty({context, half}, at::kFloat);
  at::Tensor sine = at::empty({context, half}, at::kFloat);
  for (int64_t position = 0; position < context; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      // The angle is a float32 product, as in transformers.
      const float angle = static_cast<float>(position) * frequencies[static_cast<size_t>(i)];
      cosine.data_ptr<float>()[position * half + i] =
          static_cast<float>(std::cos(static_cast<double>(angle))) * factor;
      sine.data_ptr<float>()[position * half + i] =
          static_cast<float>(std::sin(static_cast<double>(angle))) * factor;
    }
  }
  return {cosine.to(device), sine.to(device)};
}

}  // namespace

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const MatrixUse& use) {
  if (use.bf16 || use.striped) {
    const at::Tensor y =
        use.bf16 ? multiply_as(at::kBFloat16, x, weight.t()) : striped_linear(x, weight);
    return bias.defined() ? y + bias : y;
  }
  return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
}

NormWeights norm_weights(const std::string& name, const BlockSource& source) {
  return {source.vector({name + ".weight"}), source.vector({name + ".bias"})};
}

AdapterWeights adapter_weights(const std::string& name, uint64_t number,
                               const BlockSource& source) {
  return {.down = source.vector({name + "_down.weight"}),
          .down_bias = source.vector({name + "_down.bias"}),
          .up = source.vector({name + "_up.weight"}),
          .up_bias = source.vector({name + "_up.bias"}),
          .number = number};
}

BlockWeights block_weights(const Architecture& arch, int64_t layer, const BlockSource& source) {
  const std::string block = cat("blk.", layer, ".");
  const auto norm_of = [&](const char* name) { return norm_weights(block + name, source); };
  const auto names = [&](std::initializer_list<const char*> parts, const char* kind) {
    Names all;
    for (const char* part : parts) all.push_back(block + part + kind);
    return all;
  };
  const auto weights = [&](std::initializer_list<const char*> parts) {
    return source.matrix(names(parts, ".weight"));
  };
  const auto biases = [&](std::initializer_list<const char*> parts) {
    return source.vector(names(parts, ".bias"));
  };
  const std::initializer_list<const char*> gated{"ffn_gate", "ffn_up"}, plain{"ffn_up"};
  const auto& inner = arch.gated ? gated : plain;
  const bool encoder = arch.encoder;
  return {.attn_norm = norm_of(encoder ? "attn_output_norm" : "attn_norm"),
          .query_norm = norm_of("attn_q_norm"),
          .key_norm = norm_of("attn_k_norm"),
          .after_attention = norm_of("post_attention_norm"),
          .ffn_norm = norm_of(encoder ? "layer_output_norm" : "ffn_norm"),
          .after_ffn = norm_of("post_ffw_norm"),
          .qkv = weights({"attn_q", "attn_k", "attn_v"}),
          .output = weights({"attn_output"}),
          .gate_up = weights(inner),
          .down = weights({"ffn_down"}),
          .qkv_bias = biases({"attn_q", "attn_k", "attn_v"}),
          .output_bias = biases({"attn_output"}),
          .gate_up_bias = biases(inner),
          .down_bias = biases({"ffn_down"}),
          .attention_adapter = {},
          .ffn_adapter = {}};
}

at::Tensor BlockArithmetic::project(const at::Tensor& x, const Matrix& weight,
                                    const at::Tensor& bias) const {
  if (weight.leaf.defined()) return product(weight.inputs.round(x), weight.leaf, bias, use_);
  if (!weight.parts.empty()) {
    std::vector<at::Tensor> outputs;
    for (const Matrix& part : weight.parts) outputs.push_back(project(x, part, {}));
    const at::Tensor y = at::cat(outputs, 1);
    return bias.defined() ? y + bias : y;
  }
  at::Tensor y = multiply(x, weight, use_);
  return bias.defined() ? y.add_(bias) : y;
}

at::Tensor BlockArithmetic::project_onto(const at::Tensor& residual, const at::Tensor& x,
                                         const Matrix& weight, const at::Tensor& bias) const {
  if (!weight.leaf.defined()) return project(x, weight, bias).add_(residual);
  if (use_.bf16 || use_.striped || weight.inputs.rounds)
    return residual + product(weight.inputs.round(x), weight.leaf, bias, use_);
  at::Tensor sum = at::addmm(residual, x, weight.leaf.t());
  return bias.defined() ? sum + bias : sum;
}

std::vector<AttentionShape> BlockArithmetic::shapes(int64_t context,
                                                    const at::Device& device) const {
  std::vector<AttentionShape> shapes;
  const auto [cosine, sine] = rotation_tables(arch_.rope, context, device);
  const auto [local_cosine, local_sine] =
      rotation_tables(arch_.local_rope.value_or(arch_.rope), context, device);
  for (int64_t layer = 0; layer < arch_.layers; ++layer) {
    const Rope& rope = layer_rope(arch_, layer);
    const bool local = &rope != &arch_.rope;
    shapes.push_back({.context = context,
                      .heads = arch_.heads,
                      .kv_heads = arch_.kv_heads,
                      .head_dim = arch_.head_dim,
                      .rope_dims = rope.dims,
                      .cosine = local ? local_cosine : cosine,
                      .sine = local ? local_sine : sine,
                      .causal = !arch_.encoder,
                      .window = layer_window(arch_, layer),
                      .scale = arch_.attention_scale,
                      .cap = arch_.attention_cap});
  }
  return shapes;
}

at::Tensor BlockArithmetic::norm(const at::Tensor& x, const NormWeights& weights) const {
  if (arch_.norm == NormKind::kLayer)
    return at::layer_norm(x, {x.size(-1)}, weights.weight, weights.bias, arch_.norm_eps);
  const at::Tensor weight =
      arch_.norm_offset != 0 ? weights.weight + arch_.norm_offset : weights.weight;
  return rms_norm(x, weight, arch_.norm_eps, use_.operators);
}

/// Norms of the heads of queries and keys in [n, all heads * head_dim].
at::Tensor BlockArithmetic::norm_heads(const at::Tensor& qkv, const BlockWeights& block) const {
  const int64_t q = arch_.heads * arch_.head_dim, kv = arch_.kv_heads * arch_.head_dim;
  const auto normed = [&](int64_t first, int64_t width, const NormWeights& weights) {
    const at::Tensor heads = qkv.narrow(1, first, width).reshape({-1, arch_.head_dim});
    return norm(heads, weights).view({-1, width});
  };
  return at::cat(
      {normed(0, q, block.query_norm), normed(q, kv, block.key_norm), qkv.narrow(1, q + kv, kv)},
      1);
}

at::Tensor BlockArithmetic::attend(const at::Tensor& qkv, const BlockWeights& block,
                                   const AttentionShape& shape, BlockObserver* observer) const {
  const at::Tensor normed = arch_.qk_norm ? norm_heads(qkv, block) : qkv;
  if (use_.operators == Operators::kKernels) return attention(normed, shape);
  const at::Tensor turned = rotated(normed, shape);
  const int64_t queries = arch_.heads * arch_.head_dim, width = arch_.kv_heads * arch_.head_dim;
  if (observer != nullptr)
    observer->keys_and_values(turned.narrow(1, queries, width),
                              turned.narrow(1, queries + width, width));
  return attend_heads(turned, shape);
}

at::Tensor BlockArithmetic::add_branch(const at::Tensor& x, const at::Tensor& branch,
                                       const AdapterWeights& adapter) const {
  const at::Tensor sum = x + branch;
  if (!adapter.down.defined()) return sum;
  const at::Tensor narrow =
      product(bottleneck_.reads_stream ? sum : branch, adapter.down, adapter.down_bias);
  return sum +
         drop(product(activate(narrow, bottleneck_.activation, false), adapter.up, adapter.up_bias),
              use_, adapter.number);
}

at::Tensor BlockArithmetic::close_branch(const at::Tensor& x, const at::Tensor& in,
                                         const Matrix& last, const at::Tensor& bias,
                                         const NormWeights& after,
                                         const AdapterWeights& adapter) const {
  if (arch_.branch_norms) return add_branch(x, norm(project(in, last, bias), after), adapter);
  if (bottleneck_.width > 0) return add_branch(x, project(in, last, bias), adapter);
  return project_onto(x, in, last, bias);
}

at::Tensor BlockArithmetic::run_attention(const at::Tensor& x, const BlockWeights& block,
                                          const AttentionShape& shape,
                                          BlockObserver* observer) const {
  const at::Tensor in = arch_.encoder ? x : norm(x, block.attn_norm);
  if (observer != nullptr) observer->inputs(block.qkv, in);
  const at::Tensor mixed = attend(project(in, block.qkv, block.qkv_bias), block, shape, observer);
  if (observer != nullptr) observer->inputs(block.output, mixed);
  const at::Tensor y = close_branch(x, mixed, block.output, block.output_bias,
                                    block.after_attention, block.attention_adapter);
  return arch_.encoder ? norm(y, block.attn_norm) : y;
}

at::Tensor BlockArithmetic::run_ffn(const at::Tensor& x, const BlockWeights& block,
                                    BlockObserver* observer) const {
  const at::Tensor in = arch_.encoder ? x : norm(x, block.ffn_norm);
  if (observer != nullptr) observer->inputs(block.gate_up, in);
  const at::Tensor inner = activate(project(in, block.gate_up, block.gate_up_bias),
                                    arch_.activation, arch_.gated, use_.operators);
  if (observer != nullptr) observer->inputs(block.down, inner);
  const at::Tensor y =
      close_branch(x, inner, block.down, block.down_bias, block.after_ffn, block.ffn_adapter);
  return arch_.encoder ? norm(y, block.ffn_norm) : y;
}

at::Tensor BlockArithmetic::with_positions(const at::Tensor& x, const at::Tensor& positions,
                                           const Sequences& sequences) const {
  const int64_t windows = sequences.windows, context = sequences.context;
  const auto require = [&](int64_t length) {
    if (length > positions.size(0))
      throw_usage(cat("context: expected at most ", positions.size(0), " tokens, found ", length));
  };
  if (!arch_.encoder || sequences.spans == nullptr) {
    require(context);
    return (x.view({windows, context, arch_.hidden}) + positions.narrow(0, 0, context))
        .view({-1, arch_.hidden});
  }
  at::Tensor places = at::empty({windows * context}, at::kLong);
  int64_t* const out = places.data_ptr<int64_t>();
  for (const Span& span : *sequences.spans) {
    require(span.length);
    for (int64_t i = 0; i < span.length; ++i) out[span.window * context + span.begin + i] = i;
  }
  return x + positions.index_select(0, places.to(x.device()));
}

namespace {

/// x with the rows of its segments added; a model with one segment takes all ids alike.
at::Tensor with_types(const at::Tensor& x, const at::Tensor& rows, std::span<const int32_t> types) {
  const int64_t known = rows.size(0);
  if (types.empty() || known < 2) return x + rows.narrow(0, 0, 1);
  for (const int32_t type : types)
    if (type < 0 || type >= known)
      throw_bad_input(cat("token type ", type, ": expected 0 to ", known - 1,
                          "; is this the model's own tokenizer?"));
  const at::Tensor segments = at::tensor(at::ArrayRef(types.data(), types.size()), at::kInt);
  return x + rows.index_select(0, segments.to(x.device()));
}

}  // namespace

at::Tensor BlockArithmetic::enter(const at::Tensor& embedded, const EntryWeights& entry,
                                  const Sequences& sequences) const {
  at::Tensor x = embedded;
  if (arch_.embedding_scale != 1.0) x = x * arch_.embedding_scale;
  if (entry.token_types.defined()) x = with_types(x, entry.token_types, sequences.types);
  if (entry.positions.defined()) x = with_positions(x, entry.positions, sequences);
  return arch_.encoder ? norm(x, entry.norm) : x;
}

}  // namespace slmc::libtorch
