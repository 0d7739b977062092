// LibTorch's decoder: reads the architecture as data, independently of the runtime's decoder,
// against which it is checked.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/torch/functions.h"
#include "distill/training.h"

namespace slmc::libtorch {

/// Weights of `source` as one flat float32 buffer in the layout's order.
at::Tensor load_flat(const WeightSource& source, const ParameterLayout& layout);

/// A batch of windows of equal length.
struct Batch {
  int64_t windows = 0;
  int64_t context = 0;
  std::vector<int32_t> ids;  ///< [windows * context]
  std::vector<Span> spans;   ///< Empty: positions see all before them in their window.
};

/// A view of flat weights as a network. Several decoders may share the weights, each with its own
/// gradients.
class Decoder {
 public:
  /// `gradients` undefined: inference only.
  Decoder(const Architecture& arch, const ParameterLayout& layout, const at::Tensor& weights,
          const at::Tensor& gradients);

  /// Rows of the embedding, [windows * context, hidden].
  at::Tensor embed(const Batch& batch) const;
  /// From embeddings to final states after the output norm, [windows * context, hidden]. `batch`
  /// and this object must outlive backward().
  at::Tensor forward(const at::Tensor& embedded, const Batch& batch);
  /// [vocab, hidden]: the head's weight, token_embd when tied.
  const at::Tensor& head() const { return head_; }
  /// Gradient buffers of head and embedding; the caller adds to them, as neither takes part in
  /// autograd.
  const at::Tensor& head_gradient() const { return head_gradient_; }
  const at::Tensor& embedding_gradient() const { return embedding_gradient_; }

 private:
  struct Block {
    at::Tensor attn_norm, qkv, qkv_bias, output, output_bias, ffn_norm, gate_up, gate_up_bias, down,
        down_bias;
  };
  /// A leaf over adjacent slots, from `first` to `last`; undefined if the layout lacks them.
  at::Tensor leaf(const std::string& first, const std::string& last) const;
  void prepare_rope(int64_t context);

  Architecture arch_;
  ParameterLayout layout_;
  at::Tensor weights_, gradients_;
  at::Tensor embedding_, head_, embedding_gradient_, head_gradient_, output_norm_;
  std::vector<Block> blocks_;
  AttentionShape shape_;
};

/// float32 logits [n, vocab] of one sequence.
std::vector<float> sequence_logits(const WeightSource& source, std::span<const int32_t> ids);

}  // namespace slmc::libtorch
