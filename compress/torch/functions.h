// Custom autograd functions of the decoder: LibTorch does the matrix products and attention, our
// kernels what lies between.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/architecture.h"

namespace slmc::libtorch {

/// What computes between the matrix products.
enum class Operators {
  kKernels,   ///< Our kernels and fused attention: on the CPU, with gradients.
  kLibTorch,  ///< LibTorch's operators: on any device it has.
};

/// A run of positions of one window that may see each other; [begin, begin + length) of window
/// `window`.
struct Span {
  int64_t window = 0;
  int64_t begin = 0;
  int64_t length = 0;
};

/// What attention needs to know beside its input.
struct AttentionShape {
  int64_t windows = 0;
  int64_t context = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rope_dims = 0;
  at::Tensor cosine, sine;  ///< [context, rope_dims / 2]
  bool causal = true;
  int64_t window = 0;  ///< Positions that a query sees, its own included; 0: all.
  double scale = 0;    ///< Of query-key products; 0: 1 / sqrt(head_dim).
  double cap = 0;      ///< Scores become cap * tanh(score / cap); 0: none.
  /// Not 0: keys and values are rounded to 8 bits with these (Architecture::kv_scales); heeded by
  /// `rotated` alone.
  double key_scale = 0, value_scale = 0;
  const std::vector<Span>* spans =
      nullptr;  ///< Null: every window is one span. Must outlive the backward pass.
};

/// x: [n, width], weight: [width].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    Operators operators = Operators::kKernels);
/// gate_up: [n, 2 * width] -> [n, width].
at::Tensor swiglu(const at::Tensor& gate_up);
/// gate_up as swiglu's where `gated`, else [n, width], under another activation.
at::Tensor activate(const at::Tensor& gate_up, Activation activation, bool gated,
                    Operators operators = Operators::kKernels);
/// Rotary embedding and attention with grouped queries. qkv: [n, (heads + 2 * kv_heads) *
/// head_dim] -> [n, heads * head_dim].
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape);
/// Its two halves in LibTorch's operators: rotary embedding (and the cache's rounding), and
/// attention over what that gives.
at::Tensor rotated(const at::Tensor& qkv, const AttentionShape& shape);
at::Tensor attend_heads(const at::Tensor& turned, const AttentionShape& shape);

}  // namespace slmc::libtorch
