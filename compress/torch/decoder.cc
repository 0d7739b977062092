#include "compress/torch/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/products.h"

namespace slmc::libtorch {
namespace {

/// x W^T + bias, float32.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const MatrixUse& use = {}) {
  if (use.bf16 || use.striped) {
    const at::Tensor y =
        use.bf16 ? multiply_as(at::kBFloat16, x, weight.t()) : striped_linear(x, weight);
    return bias.defined() ? y + bias : y;
  }
  return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
}

/// Cosine and sine, [context, dims / 2], for sequences declared to hold `context` positions.
std::pair<at::Tensor, at::Tensor> rotation_tables(const Rope& rope, int64_t context) {
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
  return {cosine, sine};
}

std::string block_name(int64_t layer, const char* part) { return cat("blk.", layer, ".", part); }

}  // namespace

at::Tensor load_flat(const WeightSource& source, const ParameterLayout& layout) {
  at::Tensor flat = at::empty({layout.total}, at::kFloat);
  float* const out = flat.data_ptr<float>();
  parallel_for(static_cast<int64_t>(layout.slots.size()), [&](int64_t i) {
    const ParameterSlot& slot = layout.slots[static_cast<size_t>(i)];
    const TensorView view = source.view(slot.name);
    if (view.elements() != slot.size)
      throw_bad_input(cat("tensor ", slot.name, ": expected shape ", shape_text(slot.shape),
                          ", found ", shape_text(view.shape)));
    decode_rows(view, 0, view.rows(), out + slot.offset);
    source.release(slot.name);
  });
  return flat;
}

namespace {

/// A block that is run again in the backward pass.
class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const Decoder* decoder, int64_t layer) {
    ctx->save_for_backward({x});
    ctx->saved_data["decoder"] = reinterpret_cast<int64_t>(decoder);
    ctx->saved_data["layer"] = layer;
    return decoder->run_layer(x, static_cast<size_t>(layer));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto* decoder = reinterpret_cast<const Decoder*>(ctx->saved_data["decoder"].toInt());
    const at::AutoGradMode with_gradients(true);
    const at::Tensor x = ctx->get_saved_variables()[0].detach().set_requires_grad(true);
    decoder->run_layer(x, static_cast<size_t>(ctx->saved_data["layer"].toInt())).backward(grads[0]);
    return {x.grad(), {}, {}};
  }
};

}  // namespace

Decoder::Decoder(const Architecture& arch, const ParameterLayout& layout, const at::Tensor& weights,
                 const at::Tensor& gradients, std::shared_ptr<const Frozen> frozen,
                 const Lora* lora)
    : arch_(arch),
      layout_(layout),
      weights_(weights),
      gradients_(gradients),
      frozen_(std::move(frozen)) {
  if (frozen_ != nullptr) side_ = frozen_->side();
  find_heads();
  positions_ = vector({"position_embd.weight"});
  token_types_ = vector({"token_types.weight"});
  if (side_.prompt_tokens > 0) prompt_ = vector({"prompt_embd.weight"});
  output_norm_ = norm_leaf("output_norm");
  embedding_norm_ = norm_leaf("token_embd_norm");
  for (int64_t layer = 0; layer < arch_.layers; ++layer)
    blocks_.push_back(block_leaves(layer, lora));
  // A trained embedding or prompt lies below all blocks.
  if (!gradients_.defined() || embedding_gradient_.defined()) return;
  if (prompt_.defined() && prompt_.requires_grad()) return;
  const auto trained = [&](int64_t layer) {
    return std::any_of(layout_.slots.begin(), layout_.slots.end(), [&](const auto& slot) {
      return slot.name.starts_with(block_name(layer, ""));
    });
  };
  while (first_trained_ < blocks_.size() && !trained(static_cast<int64_t>(first_trained_)))
    ++first_trained_;
}

/// Embedding and head, with their gradients where they are trained.
void Decoder::find_heads() {
  const auto part_of = [&](const at::Tensor& flat, const std::string& name) {
    const ParameterSlot& slot = layout_.find(name);
    return flat.narrow(0, slot.offset, slot.size).view(slot.shape);
  };
  const auto take = [&](const std::string& name, at::Tensor& values, at::Tensor& gradient) {
    if (!layout_.has(name)) return false;
    values = part_of(weights_, name);
    if (gradients_.defined()) gradient = part_of(gradients_, name);
    return true;
  };
  const std::string name = head_name(arch_);
  take("token_embd.weight", embedding_, embedding_gradient_);
  if (!take(name, head_, head_gradient_)) head_ = frozen_->head();
  if (!embedding_.defined() && name == "token_embd.weight") embedding_ = head_;
  if (arch_.head != Head::kMasked && arch_.head != Head::kClassifier) return;
  const bool masked = arch_.head == Head::kMasked;
  const std::string bias = masked ? "output.bias" : "cls.output.bias";
  if (!take(bias, head_bias_, head_bias_gradient_)) head_bias_ = frozen_->decoded(bias);
  dense_ = vector({masked ? "mlm.weight" : "cls.weight"});
  dense_bias_ = vector({masked ? "mlm.bias" : "cls.bias"});
  if (masked) dense_norm_ = norm_leaf("mlm_norm");
}

Decoder::Norm Decoder::norm_leaf(const std::string& name) const {
  return {vector({name + ".weight"}), vector({name + ".bias"})};
}

Decoder::Block Decoder::block_leaves(int64_t layer, const Lora* lora) const {
  const auto norm_of = [&](const char* name) { return norm_leaf(block_name(layer, name)); };
  const auto names = [&](std::initializer_list<const char*> parts, const char* kind) {
    Names all;
    for (const char* part : parts) all.push_back(block_name(layer, part) + kind);
    return all;
  };
  const auto weights = [&](std::initializer_list<const char*> parts) {
    return matrix(names(parts, ".weight"), lora);
  };
  const auto biases = [&](std::initializer_list<const char*> parts) {
    return vector(names(parts, ".bias"));
  };
  const std::initializer_list<const char*> gated{"ffn_gate", "ffn_up"}, plain{"ffn_up"};
  const auto& inner = arch_.gated ? gated : plain;
  const bool encoder = arch_.encoder;
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
          .attention_adapter = adapter_leaves(layer, "attn_adapter"),
          .ffn_adapter = adapter_leaves(layer, "ffn_adapter")};
}

Decoder::Adapter Decoder::adapter_leaves(int64_t layer, const char* branch) const {
  if (side_.bottleneck.width == 0) return {};
  const std::string name = block_name(layer, branch);
  return {.down = vector({name + "_down.weight"}),
          .down_bias = vector({name + "_down.bias"}),
          .up = vector({name + "_up.weight"}),
          .up_bias = vector({name + "_up.bias"}),
          .number = 2 * static_cast<uint64_t>(layer) + (branch[0] == 'a' ? 0 : 1)};
}

at::Tensor Decoder::leaf(const Names& names) const {
  if (!layout_.has(names.front())) return {};
  const ParameterSlot &from = layout_.find(names.front()), &to = layout_.find(names.back());
  const int64_t size = to.offset + to.size - from.offset;
  const auto shaped = [&](const at::Tensor& flat) {
    at::Tensor part = flat.narrow(0, from.offset, size);
    return from.shape.size() > 1 ? part.view({-1, from.shape.back()}) : part;
  };
  at::Tensor tensor = shaped(weights_).detach();
  if (gradients_.defined()) {
    tensor.set_requires_grad(true);
    tensor.mutable_grad() = shaped(gradients_);
  }
  return tensor;
}

at::Tensor Decoder::vector(const Names& names) const {
  at::Tensor trained = leaf(names);
  if (trained.defined() || frozen_ == nullptr || !frozen_->has(names.front())) return trained;
  std::vector<at::Tensor> parts;
  for (const std::string& name : names) parts.push_back(frozen_->decoded(name));
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

Matrix Decoder::matrix(const Names& names, const Lora* lora) const {
  Matrix matrix{.leaf = leaf(names), .frozen = {}, .adapters = {}};
  if (matrix.leaf.defined() || frozen_ == nullptr) return matrix;
  int64_t row = 0;
  for (const std::string& name : names) {
    matrix.frozen.push_back(frozen_->view(name));
    if (lora != nullptr)
      for (size_t i = 0; i < lora->targets.size(); ++i) {
        const LoraTarget& target = lora->targets[i];
        if (target.tensors.front() == name)
          matrix.adapters.push_back(
              {.a = leaf({target.a()}), .b = leaf({target.b()}), .first = row, .number = i});
      }
    row += matrix.frozen.back().rows();
  }
  return matrix;
}

at::Tensor Decoder::project(const at::Tensor& x, const Matrix& weight,
                            const at::Tensor& bias) const {
  if (weight.leaf.defined()) return product(x, weight.leaf, bias, use_);
  at::Tensor y = multiply(x, weight, use_);
  return bias.defined() ? y.add_(bias) : y;
}

at::Tensor Decoder::project_onto(const at::Tensor& residual, const at::Tensor& x,
                                 const Matrix& weight, const at::Tensor& bias) const {
  if (!weight.leaf.defined()) return project(x, weight, bias).add_(residual);
  if (use_.bf16 || use_.striped) return residual + product(x, weight.leaf, bias, use_);
  at::Tensor sum = at::addmm(residual, x, weight.leaf.t());
  return bias.defined() ? sum + bias : sum;
}

void Decoder::prepare_shapes(const Batch& batch) {
  const std::vector<Span>* spans = batch.spans.empty() ? nullptr : &batch.spans;
  if (shapes_.empty() || shapes_[0].context != batch.context) {
    shapes_.clear();
    const auto [cosine, sine] = rotation_tables(arch_.rope, batch.context);
    const auto [local_cosine, local_sine] =
        rotation_tables(arch_.local_rope.value_or(arch_.rope), batch.context);
    for (int64_t layer = 0; layer < arch_.layers; ++layer) {
      const Rope& rope = layer_rope(arch_, layer);
      const bool local = &rope != &arch_.rope;
      shapes_.push_back({.context = batch.context,
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
  }
  for (AttentionShape& shape : shapes_) {
    shape.windows = batch.windows;
    shape.spans = spans;
  }
}

at::Tensor Decoder::embed(const Batch& batch) const {
  const int64_t width = arch_.hidden;
  at::Tensor rows = at::empty({static_cast<int64_t>(batch.ids.size()), width}, at::kFloat);
  float* const out = rows.data_ptr<float>();
  if (!embedding_.defined()) {
    const TensorView table = frozen_->view("token_embd.weight");
    for (size_t i = 0; i < batch.ids.size(); ++i)
      decode_rows(table, batch.ids[i], 1, out + static_cast<int64_t>(i) * width);
    return rows;
  }
  const float* const table = embedding_.data_ptr<float>();
  for (size_t i = 0; i < batch.ids.size(); ++i)
    std::memcpy(out + static_cast<int64_t>(i) * width, table + batch.ids[i] * width,
                static_cast<size_t>(width) * sizeof(float));
  return rows;
}

at::Tensor Decoder::norm(const at::Tensor& x, const Norm& weights) const {
  if (arch_.norm == NormKind::kLayer)
    return at::layer_norm(x, {x.size(-1)}, weights.weight, weights.bias, arch_.norm_eps);
  const at::Tensor weight =
      arch_.norm_offset != 0 ? weights.weight + arch_.norm_offset : weights.weight;
  return rms_norm(x, weight, arch_.norm_eps);
}

/// Norms of the heads of queries and keys in [n, all heads * head_dim].
at::Tensor Decoder::norm_heads(const at::Tensor& qkv, const Block& block) const {
  const int64_t q = arch_.heads * arch_.head_dim, kv = arch_.kv_heads * arch_.head_dim;
  const auto normed = [&](int64_t first, int64_t width, const Norm& weights) {
    const at::Tensor heads = qkv.narrow(1, first, width).reshape({-1, arch_.head_dim});
    return norm(heads, weights).view({-1, width});
  };
  return at::cat(
      {normed(0, q, block.query_norm), normed(q, kv, block.key_norm), qkv.narrow(1, q + kv, kv)},
      1);
}

at::Tensor Decoder::add_branch(const at::Tensor& x, const at::Tensor& branch,
                               const Adapter& adapter) const {
  const at::Tensor sum = x + branch;
  if (!adapter.down.defined()) return sum;
  const Bottleneck& shape = side_.bottleneck;
  const at::Tensor narrow =
      product(shape.reads_stream ? sum : branch, adapter.down, adapter.down_bias);
  return sum + drop(product(activate(narrow, shape.activation, false), adapter.up, adapter.up_bias),
                    use_, adapter.number);
}

at::Tensor Decoder::run_block(const at::Tensor& x, const Block& block,
                              const AttentionShape& shape) const {
  const auto attend = [&](const at::Tensor& in) {
    const at::Tensor qkv = project(in, block.qkv, block.qkv_bias);
    return attention(arch_.qk_norm ? norm_heads(qkv, block) : qkv, shape);
  };
  const auto inner = [&](const at::Tensor& in) {
    return activate(project(in, block.gate_up, block.gate_up_bias), arch_.activation, arch_.gated);
  };
  if (arch_.encoder) {
    const at::Tensor y =
        norm(project_onto(x, attend(x), block.output, block.output_bias), block.attn_norm);
    return norm(project_onto(y, inner(y), block.down, block.down_bias), block.ffn_norm);
  }
  if (arch_.branch_norms) {
    const at::Tensor y =
        add_branch(x,
                   norm(project(attend(norm(x, block.attn_norm)), block.output, block.output_bias),
                        block.after_attention),
                   block.attention_adapter);
    return add_branch(
        y,
        norm(project(inner(norm(y, block.ffn_norm)), block.down, block.down_bias), block.after_ffn),
        block.ffn_adapter);
  }
  if (side_.bottleneck.width > 0) {
    const at::Tensor y =
        add_branch(x, project(attend(norm(x, block.attn_norm)), block.output, block.output_bias),
                   block.attention_adapter);
    return add_branch(y, project(inner(norm(y, block.ffn_norm)), block.down, block.down_bias),
                      block.ffn_adapter);
  }
  const at::Tensor y =
      project_onto(x, attend(norm(x, block.attn_norm)), block.output, block.output_bias);
  return project_onto(y, inner(norm(y, block.ffn_norm)), block.down, block.down_bias);
}

/// x with the positions' rows added. Texts of an encoder each begin at position 0; documents of a
/// decoder go on counting.
at::Tensor Decoder::with_positions(const at::Tensor& x, const Batch& batch) const {
  const auto require = [&](int64_t length) {
    if (length > positions_.size(0))
      throw_usage(cat("context: expected at most ", positions_.size(0), " tokens, found ", length));
  };
  if (!arch_.encoder || batch.spans.empty()) {
    require(batch.context);
    return (x.view({batch.windows, batch.context, arch_.hidden}) +
            positions_.narrow(0, 0, batch.context))
        .view({-1, arch_.hidden});
  }
  at::Tensor places = at::empty({batch.windows * batch.context}, at::kLong);
  int64_t* const out = places.data_ptr<int64_t>();
  for (const Span& span : batch.spans) {
    require(span.length);
    for (int64_t i = 0; i < span.length; ++i) out[span.window * batch.context + span.begin + i] = i;
  }
  return x + positions_.index_select(0, places);
}

/// x with the rows of its segments added; a model with one segment takes all ids alike.
at::Tensor Decoder::with_types(const at::Tensor& x, const Batch& batch) const {
  const int64_t known = token_types_.size(0);
  if (batch.types.empty() || known < 2) return x + token_types_.narrow(0, 0, 1);
  for (const int32_t type : batch.types)
    if (type < 0 || type >= known)
      throw_bad_input(cat("token type ", type, ": expected 0 to ", known - 1,
                          "; is this the model's own tokenizer?"));
  return x + token_types_.index_select(0, at::tensor(batch.types, at::kInt));
}

at::Tensor Decoder::enter(const at::Tensor& embedded, const Batch& batch) const {
  at::Tensor x = embedded;
  if (arch_.embedding_scale != 1.0) x = x * arch_.embedding_scale;
  if (token_types_.defined()) x = with_types(x, batch);
  if (positions_.defined()) x = with_positions(x, batch);
  return arch_.encoder ? norm(x, embedding_norm_) : x;
}

at::Tensor Decoder::run_blocks(at::Tensor x, size_t begin, size_t end,
                               std::map<int64_t, at::Tensor>* blocks) const {
  const bool training = at::GradMode::is_enabled();
  for (size_t layer = begin; layer < end; ++layer) {
    const at::AutoGradMode keep(training && layer >= first_trained_);
    if (recompute_ && training && layer >= first_trained_) {
      if (!x.requires_grad()) x.set_requires_grad(true);
      x = Recomputed::apply(x, this, static_cast<int64_t>(layer));
    } else {
      x = run_layer(x, layer);
    }
    if (blocks == nullptr) continue;
    if (const auto asked = blocks->find(static_cast<int64_t>(layer)); asked != blocks->end())
      asked->second = x;
  }
  return x;
}

at::Tensor Decoder::forward(const at::Tensor& embedded, const Batch& batch,
                            std::map<int64_t, at::Tensor>* blocks) {
  if (prompt_.defined()) return forward_prompted(embedded, batch, blocks);
  prepare_shapes(batch);
  const at::Tensor x = run_blocks(enter(embedded, batch), 0, blocks_.size(), blocks);
  return arch_.encoder ? x : norm(x, output_norm_);
}

at::Tensor Decoder::run_frozen(const at::Tensor& embedded, const Batch& batch) {
  const at::NoGradGuard no_grad;
  prepare_shapes(batch);
  return run_blocks(enter(embedded, batch), 0, first_trained_, nullptr);
}

at::Tensor Decoder::forward_from(const at::Tensor& states, const Batch& batch) {
  prepare_shapes(batch);
  const at::Tensor x = run_blocks(states, first_trained_, blocks_.size(), nullptr);
  return arch_.encoder ? x : norm(x, output_norm_);
}

at::Tensor Decoder::run_layer(const at::Tensor& x, size_t layer) const {
  return run_block(x, blocks_[layer], shapes_[layer]);
}

at::Tensor cap_logits(const Architecture& arch, at::Tensor& logits) {
  if (arch.final_cap <= 0) return {};
  logits.div_(arch.final_cap).tanh_();
  const at::Tensor derivative = 1 - logits * logits;
  logits.mul_(arch.final_cap);
  return derivative;
}

at::Tensor Decoder::features(const at::Tensor& states, const at::Tensor& rows) const {
  if (!arch_.encoder) return states;
  const at::Tensor dense = activate(product(states.index_select(0, rows), dense_, dense_bias_),
                                    arch_.head_activation, false);
  return arch_.head == Head::kMasked ? norm(dense, dense_norm_) : dense;
}

namespace {

/// What an encoder's head makes of the final states of one sequence.
at::Tensor encoder_head(const Decoder& encoder, const at::Tensor& states) {
  const Architecture& arch = encoder.arch();
  if (arch.head == Head::kStates)
    return arch.pooling == Pooling::kFirst ? states.narrow(0, 0, 1) : states.mean(0, true);
  const int64_t rows = arch.head == Head::kMasked ? states.size(0) : 1;
  return product(encoder.features(states, at::arange(rows, at::kLong)), encoder.head(),
                 encoder.head_bias());
}

}  // namespace

std::vector<float> sequence_logits(const WeightSource& source, std::span<const int32_t> ids,
                                   std::span<const int32_t> types) {
  const at::NoGradGuard no_grad;
  const Architecture& arch = source.arch();
  for (const int32_t id : ids)
    if (id < 0 || id >= arch.vocab)
      throw_bad_input(cat("token id ", id, ": expected 0 to ", arch.vocab - 1));
  const ParameterLayout layout = parameter_layout(arch);
  const at::Tensor weights = load_flat(source, layout);
  // What is tuned beside the weights is no part of the layout; without it there is nothing else to
  // look up, and a tensor that the architecture does not name must not be found.
  const SideShape& side = side_shape(source);
  std::shared_ptr<const Frozen> beside;
  if (side.prompt_tokens > 0 || side.bottleneck.width > 0)
    beside = std::make_shared<Frozen>(
        std::shared_ptr<const WeightSource>(std::shared_ptr<const void>(), &source));
  Decoder decoder(arch, layout, weights, {}, beside);
  Batch batch{.windows = 1,
              .context = static_cast<int64_t>(ids.size()),
              .ids = {ids.begin(), ids.end()},
              .spans = {},
              .types = {types.begin(), types.end()}};
  const at::Tensor states = decoder.forward(decoder.embed(batch), batch);
  at::Tensor logits = arch.encoder ? encoder_head(decoder, states).contiguous()
                                   : at::mm(states, decoder.head().t()).contiguous();
  cap_logits(arch, logits);
  const float* const values = logits.data_ptr<float>();
  return {values, values + logits.numel()};
}

}  // namespace slmc::libtorch
