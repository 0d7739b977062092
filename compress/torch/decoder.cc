#include "compress/torch/decoder.h"

#include <cmath>
#include <cstring>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/torch/precompiled.h"

namespace slmc::libtorch {
namespace {

/// x W^T + bias (+ residual).
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
}
at::Tensor project_onto(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias) {
  at::Tensor sum = at::addmm(residual, x, weight.t());
  return bias.defined() ? sum + bias : sum;
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

Decoder::Decoder(const Architecture& arch, const ParameterLayout& layout, const at::Tensor& weights,
                 const at::Tensor& gradients)
    : arch_(arch), layout_(layout), weights_(weights), gradients_(gradients) {
  const auto matrix = [&](const at::Tensor& flat, const std::string& name) {
    const ParameterSlot& slot = layout_.find(name);
    return flat.narrow(0, slot.offset, slot.size).view(slot.shape);
  };
  const std::string head_name = arch_.tied ? "token_embd.weight" : "output.weight";
  embedding_ = matrix(weights_, "token_embd.weight");
  head_ = matrix(weights_, head_name);
  if (gradients_.defined()) {
    embedding_gradient_ = matrix(gradients_, "token_embd.weight");
    head_gradient_ = matrix(gradients_, head_name);
  }
  output_norm_ = leaf("output_norm.weight", "output_norm.weight");
  for (int64_t layer = 0; layer < arch_.layers; ++layer) {
    const auto part = [&](const char* first, const char* last) {
      return leaf(block_name(layer, first), block_name(layer, last));
    };
    blocks_.push_back(Block{.attn_norm = part("attn_norm.weight", "attn_norm.weight"),
                            .qkv = part("attn_q.weight", "attn_v.weight"),
                            .qkv_bias = part("attn_q.bias", "attn_v.bias"),
                            .output = part("attn_output.weight", "attn_output.weight"),
                            .output_bias = part("attn_output.bias", "attn_output.bias"),
                            .ffn_norm = part("ffn_norm.weight", "ffn_norm.weight"),
                            .gate_up = part("ffn_gate.weight", "ffn_up.weight"),
                            .gate_up_bias = part("ffn_gate.bias", "ffn_up.bias"),
                            .down = part("ffn_down.weight", "ffn_down.weight"),
                            .down_bias = part("ffn_down.bias", "ffn_down.bias")});
  }
}

at::Tensor Decoder::leaf(const std::string& first, const std::string& last) const {
  const ParameterSlot* from = nullptr;
  const ParameterSlot* to = nullptr;
  for (const ParameterSlot& slot : layout_.slots) {
    if (slot.name == first) from = &slot;
    if (slot.name == last) to = &slot;
  }
  if (from == nullptr || to == nullptr) return {};
  const int64_t size = to->offset + to->size - from->offset;
  const auto shaped = [&](const at::Tensor& flat) {
    at::Tensor part = flat.narrow(0, from->offset, size);
    return from->shape.size() > 1 ? part.view({-1, from->shape.back()}) : part;
  };
  at::Tensor tensor = shaped(weights_).detach();
  if (gradients_.defined()) {
    tensor.set_requires_grad(true);
    tensor.mutable_grad() = shaped(gradients_);
  }
  return tensor;
}

void Decoder::prepare_rope(int64_t context) {
  if (shape_.cosine.defined() && shape_.cosine.size(0) == context) return;
  const std::vector<float> frequencies = rope_inverse_frequencies(arch_.rope);
  const auto half = static_cast<int64_t>(frequencies.size());
  shape_.cosine = at::empty({context, half}, at::kFloat);
  shape_.sine = at::empty({context, half}, at::kFloat);
  for (int64_t position = 0; position < context; ++position)
    for (int64_t i = 0; i < half; ++i) {
      // The angle is a float32 product, as in transformers.
      const float angle = static_cast<float>(position) * frequencies[static_cast<size_t>(i)];
      shape_.cosine.data_ptr<float>()[position * half + i] =
          static_cast<float>(std::cos(static_cast<double>(angle)));
      shape_.sine.data_ptr<float>()[position * half + i] =
          static_cast<float>(std::sin(static_cast<double>(angle)));
    }
}

at::Tensor Decoder::embed(const Batch& batch) const {
  const int64_t width = arch_.hidden;
  at::Tensor rows = at::empty({static_cast<int64_t>(batch.ids.size()), width}, at::kFloat);
  const float* const table = embedding_.data_ptr<float>();
  float* const out = rows.data_ptr<float>();
  for (size_t i = 0; i < batch.ids.size(); ++i)
    std::memcpy(out + static_cast<int64_t>(i) * width, table + batch.ids[i] * width,
                static_cast<size_t>(width) * sizeof(float));
  return rows;
}

at::Tensor Decoder::forward(const at::Tensor& embedded, const Batch& batch) {
  prepare_rope(batch.context);
  shape_.windows = batch.windows;
  shape_.context = batch.context;
  shape_.heads = arch_.heads;
  shape_.kv_heads = arch_.kv_heads;
  shape_.head_dim = arch_.head_dim;
  shape_.rope_dims = arch_.rope.dims;
  shape_.spans = batch.spans.empty() ? nullptr : &batch.spans;
  at::Tensor x = embedded;
  for (const Block& block : blocks_) {
    const at::Tensor attended = attention(
        project(rms_norm(x, block.attn_norm, arch_.norm_eps), block.qkv, block.qkv_bias), shape_);
    x = project_onto(x, attended, block.output, block.output_bias);
    const at::Tensor inner = swiglu(
        project(rms_norm(x, block.ffn_norm, arch_.norm_eps), block.gate_up, block.gate_up_bias));
    x = project_onto(x, inner, block.down, block.down_bias);
  }
  return rms_norm(x, output_norm_, arch_.norm_eps);
}

std::vector<float> sequence_logits(const WeightSource& source, std::span<const int32_t> ids) {
  const at::NoGradGuard no_grad;
  const Architecture& arch = source.arch();
  for (const int32_t id : ids)
    if (id < 0 || id >= arch.vocab)
      throw_bad_input(cat("token id ", id, ": expected 0 to ", arch.vocab - 1));
  const ParameterLayout layout = parameter_layout(arch);
  Decoder decoder(arch, layout, load_flat(source, layout), {});
  Batch batch{.windows = 1,
              .context = static_cast<int64_t>(ids.size()),
              .ids = {ids.begin(), ids.end()},
              .spans = {}};
  const at::Tensor states = decoder.forward(decoder.embed(batch), batch);
  const at::Tensor logits = at::mm(states, decoder.head().t()).contiguous();
  const float* const values = logits.data_ptr<float>();
  return {values, values + logits.numel()};
}

}  // namespace slmc::libtorch
