// LibTorch's decoder: reads the architecture as data, independently of the runtime's decoder,
// against which it is checked.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/torch/block.h"
#include "distill/training.h"

namespace slmc::libtorch {

/// Weights of `source` as one flat float32 buffer in the layout's order.
at::Tensor load_flat(const WeightSource& source, const ParameterLayout& layout);

/// A batch of windows of equal length; or texts of any lengths one behind the other, as one window
/// with a span for each.
struct Batch {
  int64_t windows = 0;
  int64_t context = 0;
  std::vector<int32_t> ids;      ///< [windows * context]
  std::vector<Span> spans;       ///< Empty: positions see all before them in their window.
  std::vector<int32_t> types{};  ///< Parallel to ids, an encoder's segments; empty: all 0.
};

/// A view of flat weights as a network. Several decoders may share the weights, each with its own
/// gradients.
class Decoder {
 public:
  /// `weights` and `gradients` are on `place.device`; no gradients: inference only. What `layout`
  /// has not comes from `frozen` of the same place, with the adapters of `lora`, whose values are
  /// in `layout`; both may be null.
  Decoder(const Architecture& arch, const ParameterLayout& layout, const at::Tensor& weights,
          const at::Tensor& gradients, const ForwardPlace& place,
          std::shared_ptr<const Frozen> frozen = nullptr, const Lora* lora = nullptr);

  const Architecture& arch() const { return arithmetic_.arch(); }
  /// Rows of the embedding, [windows * context, hidden].
  at::Tensor embed(const Batch& batch) const;
  /// From embeddings to final states (of the batch's tokens, where a prompt stands before every
  /// span), after a decoder's output norm, [windows * context, hidden].
  /// `batch` and this object must outlive backward(). `blocks`, if not null, has the numbers of
  /// blocks as keys and gets what they give.
  at::Tensor forward(const at::Tensor& embedded, const Batch& batch,
                     std::map<int64_t, at::Tensor>* blocks = nullptr);
  /// Blocks before it are frozen, and so is what enters them: 0 if anything there is trained.
  int64_t frozen_blocks() const { return static_cast<int64_t>(first_trained_); }
  /// From embeddings through the frozen blocks.
  at::Tensor run_frozen(const at::Tensor& embedded, const Batch& batch);
  /// `forward` from what run_frozen gives.
  at::Tensor forward_from(const at::Tensor& states, const Batch& batch);
  /// The leaf of one tensor of the layout.
  at::Tensor trained(const std::string& name) const { return leaf({name}); }
  /// What the head's weight multiplies: of a decoder the states; of an encoder its head's dense
  /// layer at the positions `rows` ([count], int64, in host memory) alone.
  at::Tensor features(const at::Tensor& states, const at::Tensor& rows) const;
  /// [vocab, hidden]: the head's weight, token_embd when tied; of a classifier [classes, hidden].
  const at::Tensor& head() const { return head_; }
  /// [vocab] or [classes]; undefined where there is none.
  const at::Tensor& head_bias() const { return head_bias_; }
  /// Gradient buffers of head and embedding; the caller adds to them, as neither takes part in
  /// autograd. Undefined where they are frozen.
  const at::Tensor& head_gradient() const { return head_gradient_; }
  const at::Tensor& head_bias_gradient() const { return head_bias_gradient_; }
  const at::Tensor& embedding_gradient() const { return embedding_gradient_; }
  /// Adds the gradients of what `embed` gave to the embedding's.
  void add_embedding_gradient(const Batch& batch, const at::Tensor& gradient);

  /// Blocks keep only what enters them and run again in the backward pass (Chen et al. 2016).
  void recompute_blocks() { recompute_ = true; }
  /// How matrices and adapters are used in the passes that follow.
  MatrixUse& use() { return arithmetic_.use(); }
  /// Block `layer` over [windows * context, hidden].
  at::Tensor run_layer(const at::Tensor& x, size_t layer) const;

 private:
  /// A batch with the prompt's virtual tokens before every span. Rows are those of the batch and,
  /// behind them, of the prompt.
  struct Prompted {
    Batch batch;          ///< Without ids.
    at::Tensor rows;      ///< [windows * context]: which row stands there.
    at::Tensor position;  ///< [windows * context], from the span's begin.
    at::Tensor tokens;    ///< Where the rows of the original batch stand.
  };
  /// A leaf over the slots of these names, which are adjacent; undefined if the layout lacks them.
  at::Tensor leaf(const Names& names) const;
  bool plain() const { return arithmetic_.operators() == Operators::kLibTorch; }
  /// The same or, frozen, their values one behind the other; undefined if the model lacks them.
  at::Tensor vector(const Names& names) const;
  Matrix matrix(const Names& names, const Lora* lora) const;
  Prompted with_prompt(const Batch& batch) const;
  at::Tensor forward_prompted(const at::Tensor& embedded, const Batch& batch,
                              std::map<int64_t, at::Tensor>* blocks);
  void find_heads();
  void prepare_shapes(const Batch& batch);
  /// What enters the first block.
  at::Tensor enter(const at::Tensor& embedded, const Batch& batch) const;
  at::Tensor run_blocks(at::Tensor x, size_t begin, size_t end,
                        std::map<int64_t, at::Tensor>* blocks) const;

  BlockArithmetic arithmetic_;
  at::Device device_;
  SideShape side_;
  ParameterLayout layout_;
  at::Tensor weights_, gradients_;
  std::shared_ptr<const Frozen> frozen_;
  bool recompute_ = false;
  size_t first_trained_ = 0;  ///< Blocks before it are run without keeping anything.
  at::Tensor embedding_, head_, embedding_gradient_, head_gradient_;
  at::Tensor prompt_;  ///< [prompt_tokens, hidden]; undefined without one.
  Prompted prompted_;  ///< Of the last forward pass, for its backward pass.
  at::Tensor head_bias_, head_bias_gradient_;
  at::Tensor dense_, dense_bias_;  ///< Of an encoder's head ...
  NormWeights dense_norm_;         ///< ... and of a masked one.
  EntryWeights entry_;
  NormWeights output_norm_;
  std::vector<BlockWeights> blocks_;
  std::vector<AttentionShape> shapes_;  ///< One a layer.
};

/// The head's products with final states capped in place, where the architecture does that. Returns
/// the derivative by the products, or an undefined tensor.
at::Tensor cap_logits(const Architecture& arch, at::Tensor& logits);

/// float32 logits [n, vocab] of one sequence, computed on `device`; of an encoder what its head
/// gives, [rows, columns], for ids of these segments (`types` empty: all 0).
std::vector<float> sequence_logits(const WeightSource& source, std::span<const int32_t> ids,
                                   std::span<const int32_t> types, const at::Device& device);

}  // namespace slmc::libtorch
