#include "compress/torch/decoder.h"

#include <algorithm>
#include <cstring>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/torch/kernels.h"
#include "compress/torch/precompiled.h"

namespace slmc::libtorch {
namespace {

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
                 const at::Tensor& gradients, const ForwardPlace& place,
                 std::shared_ptr<const Frozen> frozen, const Lora* lora)
    : arithmetic_(arch, place.device.is_cpu() ? place.operators : Operators::kLibTorch),
      device_(place.device),
      layout_(layout),
      weights_(weights),
      gradients_(gradients),
      frozen_(std::move(frozen)) {
  arithmetic_.use().bf16 = place.bf16;
  if (frozen_ != nullptr) side_ = frozen_->side();
  arithmetic_.set_bottleneck(side_.bottleneck);
  find_heads();
  const BlockSource source{[this](const Names& names) { return vector(names); },
                           [&](const Names& names) { return matrix(names, lora); }};
  entry_ = {vector({"position_embd.weight"}), vector({"token_types.weight"}),
            norm_weights("token_embd_norm", source)};
  if (side_.prompt_tokens > 0) prompt_ = vector({"prompt_embd.weight"});
  output_norm_ = norm_weights("output_norm", source);
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    blocks_.push_back(block_weights(arch, layer, source));
    if (side_.bottleneck.width == 0) continue;
    const uint64_t number = 2 * static_cast<uint64_t>(layer);
    blocks_.back().attention_adapter =
        adapter_weights(block_name(layer, "attn_adapter"), number, source);
    blocks_.back().ffn_adapter =
        adapter_weights(block_name(layer, "ffn_adapter"), number + 1, source);
  }
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
  const std::string name = head_name(arch());
  take("token_embd.weight", embedding_, embedding_gradient_);
  if (!take(name, head_, head_gradient_)) head_ = frozen_->head();
  if (!embedding_.defined() && name == "token_embd.weight") embedding_ = head_;
  if (arch().head != Head::kMasked && arch().head != Head::kClassifier) return;
  const bool masked = arch().head == Head::kMasked;
  const std::string bias = masked ? "output.bias" : "cls.output.bias";
  if (!take(bias, head_bias_, head_bias_gradient_)) head_bias_ = frozen_->decoded(bias);
  dense_ = vector({masked ? "mlm.weight" : "cls.weight"});
  dense_bias_ = vector({masked ? "mlm.bias" : "cls.bias"});
  if (masked) dense_norm_ = {vector({"mlm_norm.weight"}), vector({"mlm_norm.bias"})};
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
  Matrix matrix{.names = names, .leaf = leaf(names)};
  if (matrix.leaf.defined() || frozen_ == nullptr) return matrix;
  matrix.frozen = frozen_.get();
  matrix.resident = frozen_->resident(names);
  if (lora == nullptr) return matrix;
  int64_t row = 0;
  for (const std::string& name : names) {
    for (size_t i = 0; i < lora->targets.size(); ++i) {
      const LoraTarget& target = lora->targets[i];
      if (target.tensors.front() == name)
        matrix.adapters.push_back(
            {.a = leaf({target.a()}), .b = leaf({target.b()}), .first = row, .number = i});
    }
    row += frozen_->rows(name);
  }
  return matrix;
}

namespace {

at::Tensor ids_of(const Batch& batch, const at::Device& device) {
  return at::tensor(batch.ids, at::kInt).to(device, at::kLong);
}

}  // namespace

void Decoder::prepare_shapes(const Batch& batch) {
  if (shapes_.empty() || shapes_[0].context != batch.context)
    shapes_ = arithmetic_.shapes(batch.context, device_);
  for (AttentionShape& shape : shapes_) {
    shape.windows = batch.windows;
    shape.spans = batch.spans.empty() ? nullptr : &batch.spans;
  }
}

at::Tensor Decoder::embed(const Batch& batch) const {
  if (embedding_.defined() && plain()) return embedding_.index_select(0, ids_of(batch, device_));
  const int64_t width = arch().hidden;
  at::Tensor rows = at::empty({static_cast<int64_t>(batch.ids.size()), width}, at::kFloat);
  float* const out = rows.data_ptr<float>();
  if (!embedding_.defined()) {
    const TensorView table = frozen_->view("token_embd.weight");
    for (size_t i = 0; i < batch.ids.size(); ++i)
      decode_rows(table, batch.ids[i], 1, out + static_cast<int64_t>(i) * width);
    return rows.to(device_);
  }
  const float* const table = embedding_.data_ptr<float>();
  for (size_t i = 0; i < batch.ids.size(); ++i)
    std::memcpy(out + static_cast<int64_t>(i) * width, table + batch.ids[i] * width,
                static_cast<size_t>(width) * sizeof(float));
  return rows;
}

void Decoder::add_embedding_gradient(const Batch& batch, const at::Tensor& gradient) {
  if (!plain()) {
    add_rows(gradient.size(0), gradient.size(1), batch.ids.data(),
             gradient.contiguous().data_ptr<float>(), embedding_gradient_.data_ptr<float>());
    return;
  }
  c10::List<std::optional<at::Tensor>> rows;
  rows.push_back(ids_of(batch, device_));
  // Sorted by rows on a GPU, where adding in no order would give other bits each time.
  at::index_put_(embedding_gradient_, rows, gradient, /*accumulate=*/true);
}

at::Tensor Decoder::enter(const at::Tensor& embedded, const Batch& batch) const {
  return arithmetic_.enter(embedded, entry_,
                           {.windows = batch.windows,
                            .context = batch.context,
                            .spans = batch.spans.empty() ? nullptr : &batch.spans,
                            .types = batch.types});
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
  return arch().encoder ? x : arithmetic_.norm(x, output_norm_);
}

at::Tensor Decoder::run_frozen(const at::Tensor& embedded, const Batch& batch) {
  const at::NoGradGuard no_grad;
  prepare_shapes(batch);
  return run_blocks(enter(embedded, batch), 0, first_trained_, nullptr);
}

at::Tensor Decoder::forward_from(const at::Tensor& states, const Batch& batch) {
  prepare_shapes(batch);
  const at::Tensor x = run_blocks(states, first_trained_, blocks_.size(), nullptr);
  return arch().encoder ? x : arithmetic_.norm(x, output_norm_);
}

at::Tensor Decoder::run_layer(const at::Tensor& x, size_t layer) const {
  return arithmetic_.run(x, blocks_[layer], shapes_[layer]);
}

at::Tensor cap_logits(const Architecture& arch, at::Tensor& logits) {
  if (arch.final_cap <= 0) return {};
  logits.div_(arch.final_cap).tanh_();
  const at::Tensor derivative = 1 - logits * logits;
  logits.mul_(arch.final_cap);
  return derivative;
}

at::Tensor Decoder::features(const at::Tensor& states, const at::Tensor& rows) const {
  if (!arch().encoder) return states;
  const at::Tensor chosen = states.index_select(0, rows.to(device_));
  const at::Tensor dense =
      activate(product(chosen, dense_, dense_bias_), arch().head_activation, false);
  return arch().head == Head::kMasked ? arithmetic_.norm(dense, dense_norm_) : dense;
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
                                   std::span<const int32_t> types, const at::Device& device) {
  const at::NoGradGuard no_grad;
  const Architecture& arch = source.arch();
  for (const int32_t id : ids)
    if (id < 0 || id >= arch.vocab)
      throw_bad_input(cat("token id ", id, ": expected 0 to ", arch.vocab - 1));
  // Nothing is trained: on the cpu a matrix is decoded where it is used, one at a time.
  const ForwardPlace place{.device = device};
  const auto frozen = std::make_shared<Frozen>(
      std::shared_ptr<const WeightSource>(std::shared_ptr<const void>(), &source), place, true);
  Decoder decoder(arch, {}, at::empty({0}, device), {}, place, frozen);
  Batch batch{.windows = 1,
              .context = static_cast<int64_t>(ids.size()),
              .ids = {ids.begin(), ids.end()},
              .spans = {},
              .types = {types.begin(), types.end()}};
  const at::Tensor states = decoder.forward(decoder.embed(batch), batch);
  at::Tensor logits =
      arch.encoder ? encoder_head(decoder, states) : at::mm(states, decoder.head().t());
  cap_logits(arch, logits);
  logits = logits.to(at::kCPU).contiguous();
  const float* const values = logits.data_ptr<float>();
  return {values, values + logits.numel()};
}

}  // namespace slmc::libtorch
