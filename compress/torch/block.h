// One block of a transformer as the architecture describes it: its weights, wherever they come
// from, and its arithmetic, the same for training and for calibration.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/torch/functions.h"
#include "compress/torch/matrix.h"
#include "formats/adapter.h"
#include "formats/architecture.h"

namespace slmc::libtorch {

using Names = std::vector<std::string>;

struct NormWeights {
  at::Tensor weight, bias;
};

/// A bottleneck adapter; undefined where the branch has none.
struct AdapterWeights {
  at::Tensor down, down_bias, up, up_bias;
  uint64_t number = 0;  ///< Tells adapters apart in dropout's streams.
};

struct BlockWeights {
  NormWeights attn_norm, query_norm, key_norm, after_attention, ffn_norm, after_ffn;
  Matrix qkv, output, gate_up, down;
  at::Tensor qkv_bias, output_bias, gate_up_bias, down_bias;
  AdapterWeights attention_adapter, ffn_adapter;
};

/// Where a block's tensors come from. Of several names the rows follow each other; what the model
/// lacks is undefined. Matrices are asked for in the order in which they are used.
struct BlockSource {
  std::function<at::Tensor(const Names&)> vector;
  std::function<Matrix(const Names&)> matrix;
};
BlockWeights block_weights(const Architecture& arch, int64_t layer, const BlockSource& source);
NormWeights norm_weights(const std::string& name, const BlockSource& source);
AdapterWeights adapter_weights(const std::string& name, uint64_t number, const BlockSource& source);

/// What is added to embeddings before the first block.
struct EntryWeights {
  at::Tensor positions, token_types;  ///< Undefined: none.
  NormWeights norm;                   ///< An encoder's.
};

/// How the embeddings, [windows * context, hidden], lie in their sequences.
struct Sequences {
  int64_t windows = 0, context = 0;
  /// Null: every window is one. Texts of an encoder each begin at position 0; documents of a
  /// decoder go on counting.
  const std::vector<Span>* spans = nullptr;
  std::span<const int32_t> types{};  ///< An encoder's segments, [windows * context]; empty: all 0.
};

/// Looks on while a block runs. May throw to stop it.
class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  /// `x` [n, columns] is about to be multiplied by `matrix`.
  virtual void inputs(const Matrix& matrix, const at::Tensor& x) = 0;
  /// What attention is given, [n, kv_heads * head_dim] each; only of Operators::kLibTorch.
  virtual void keys_and_values(const at::Tensor& keys, const at::Tensor& values) = 0;
};

class BlockArithmetic {
 public:
  BlockArithmetic(Architecture arch, Operators operators) : arch_(std::move(arch)) {
    use_.operators = operators;
  }

  const Architecture& arch() const { return arch_; }
  Operators operators() const { return use_.operators; }
  /// How matrices and adapters are used in the passes that follow.
  MatrixUse& use() { return use_; }
  /// The shape of bottleneck adapters, of which blocks may have some.
  void set_bottleneck(const Bottleneck& shape) { bottleneck_ = shape; }
  /// Of every layer, for sequences on `device` that are declared to hold `context` positions.
  std::vector<AttentionShape> shapes(int64_t context, const at::Device& device) const;

  /// Embeddings become what enters the first block.
  at::Tensor enter(const at::Tensor& embedded, const EntryWeights& entry,
                   const Sequences& sequences) const;
  at::Tensor norm(const at::Tensor& x, const NormWeights& weights) const;
  /// The block over [windows * context, hidden].
  at::Tensor run(const at::Tensor& x, const BlockWeights& block, const AttentionShape& shape,
                 BlockObserver* observer = nullptr) const {
    return run_ffn(run_attention(x, block, shape, observer), block, observer);
  }
  /// Its branches.
  at::Tensor run_attention(const at::Tensor& x, const BlockWeights& block,
                           const AttentionShape& shape, BlockObserver* observer = nullptr) const;
  at::Tensor run_ffn(const at::Tensor& x, const BlockWeights& block,
                     BlockObserver* observer = nullptr) const;

 private:
  /// x W^T + bias (+ residual).
  at::Tensor project(const at::Tensor& x, const Matrix& weight, const at::Tensor& bias) const;
  at::Tensor project_onto(const at::Tensor& residual, const at::Tensor& x, const Matrix& weight,
                          const at::Tensor& bias) const;
  /// x and a branch that ends in `last`, whose inputs are `in`; `after` is the branch's own norm.
  at::Tensor close_branch(const at::Tensor& x, const at::Tensor& in, const Matrix& last,
                          const at::Tensor& bias, const NormWeights& after,
                          const AdapterWeights& adapter) const;
  /// x + branch, and what its adapter makes of it.
  at::Tensor add_branch(const at::Tensor& x, const at::Tensor& branch,
                        const AdapterWeights& adapter) const;
  at::Tensor with_positions(const at::Tensor& x, const at::Tensor& positions,
                            const Sequences& sequences) const;
  at::Tensor norm_heads(const at::Tensor& qkv, const BlockWeights& block) const;
  at::Tensor attend(const at::Tensor& qkv, const BlockWeights& block, const AttentionShape& shape,
                    BlockObserver* observer) const;

  Architecture arch_;
  MatrixUse use_;
  Bottleneck bottleneck_{};
};

/// x W^T + bias, float32.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const MatrixUse& use = {});

}  // namespace slmc::libtorch
