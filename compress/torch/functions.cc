#include "compress/torch/functions.h"

#include <cmath>
#include <limits>

#include "compress/torch/kernels.h"
#include "compress/torch/precompiled.h"

namespace slmc::libtorch {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

float* data(const at::Tensor& tensor) { return tensor.data_ptr<float>(); }

class RmsNorm : public Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    at::Tensor y = at::empty_like(x);
    at::Tensor rstd = at::empty({x.size(0)}, x.options());
    rms_norm_forward(x.size(0), x.size(1), static_cast<float>(eps), data(x), data(weight), data(y),
                     data(rstd));
    ctx->save_for_backward({x, weight, rstd});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = at::empty_like(saved[0]);
    at::Tensor dw = at::zeros_like(saved[1]);
    rms_norm_backward(dx.size(0), dx.size(1), data(saved[0]), data(saved[1]), data(saved[2]),
                      data(dy), data(dx), data(dw));
    return {dx, dw, at::Tensor()};
  }
};

class SwiGlu : public Function<SwiGlu> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    at::Tensor y = at::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
    swiglu_forward(y.size(0), y.size(1), data(gate_up), data(y));
    ctx->save_for_backward({gate_up});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = at::empty_like(gate_up);
    swiglu_backward(dy.size(0), dy.size(1), data(gate_up), data(dy), data(dx));
    return {dx};
  }
};

/// The [windows, heads, length, head_dim] view of some heads of a [n, all heads * head_dim] tensor,
/// for one span or for all windows.
at::Tensor heads_of(const at::Tensor& rows, const AttentionShape& s, int64_t all_heads,
                    int64_t first, int64_t count, const Span* span) {
  at::Tensor view =
      rows.view({s.windows, s.context, all_heads, s.head_dim}).narrow(2, first, count);
  if (span != nullptr) view = view.narrow(0, span->window, 1).narrow(1, span->begin, span->length);
  return view.transpose(1, 2);
}

void rotate(const AttentionShape& s, int64_t heads, float direction, const at::Tensor& in,
            int64_t in_stride, float* out, int64_t out_stride) {
  rotate_heads(s.windows * s.context, s.context, heads, s.head_dim, s.rope_dims, data(s.cosine),
               data(s.sine), direction, data(in), in_stride, out, out_stride);
}

class Attention : public Function<Attention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv,
                            const AttentionShape* shape) {
    const AttentionShape& s = *shape;
    const int64_t all = s.heads + 2 * s.kv_heads;
    const int64_t stride = all * s.head_dim;
    const int64_t rotated = (s.heads + s.kv_heads) * s.head_dim;
    at::Tensor turned = at::empty_like(qkv);
    rotate(s, s.heads + s.kv_heads, 1.0f, qkv, stride, data(turned), stride);
    turned.narrow(1, rotated, stride - rotated).copy_(qkv.narrow(1, rotated, stride - rotated));
    variable_list kept{turned};
    at::Tensor out;
    const auto attend = [&](const Span* span) {
      return at::_scaled_dot_product_flash_attention_for_cpu(
          heads_of(turned, s, all, 0, s.heads, span),
          heads_of(turned, s, all, s.heads, s.kv_heads, span),
          heads_of(turned, s, all, s.heads + s.kv_heads, s.kv_heads, span), 0.0, s.causal);
    };
    if (s.spans == nullptr) {
      auto [result, lse] = attend(nullptr);
      out = result.transpose(1, 2).contiguous().view({qkv.size(0), s.heads * s.head_dim});
      kept.push_back(lse);
    } else {
      out = at::empty({qkv.size(0), s.heads * s.head_dim}, qkv.options());
      for (const Span& span : *s.spans) {
        auto [result, lse] = attend(&span);
        heads_of(out, s, s.heads, 0, s.heads, &span).copy_(result);
        kept.push_back(lse);
      }
    }
    kept.push_back(out);
    ctx->save_for_backward(kept);
    ctx->saved_data["shape"] = reinterpret_cast<int64_t>(shape);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const AttentionShape& s =
        *reinterpret_cast<const AttentionShape*>(ctx->saved_data["shape"].toInt());
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& turned = saved.front();
    const at::Tensor& out = saved.back();
    const int64_t all = s.heads + 2 * s.kv_heads;
    const int64_t stride = all * s.head_dim;
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = at::empty_like(turned);
    const auto differentiate = [&](const Span* span, const at::Tensor& lse) {
      return at::_scaled_dot_product_flash_attention_for_cpu_backward(
          heads_of(dy, s, s.heads, 0, s.heads, span), heads_of(turned, s, all, 0, s.heads, span),
          heads_of(turned, s, all, s.heads, s.kv_heads, span),
          heads_of(turned, s, all, s.heads + s.kv_heads, s.kv_heads, span),
          heads_of(out, s, s.heads, 0, s.heads, span), lse, 0.0, s.causal);
    };
    const auto store = [&](const Span* span, const at::Tensor& lse) {
      const auto [dq, dk, dv] = differentiate(span, lse);
      heads_of(dx, s, all, 0, s.heads, span).copy_(dq);
      heads_of(dx, s, all, s.heads, s.kv_heads, span).copy_(dk);
      heads_of(dx, s, all, s.heads + s.kv_heads, s.kv_heads, span).copy_(dv);
    };
    if (s.spans == nullptr) {
      store(nullptr, saved[1]);
    } else {
      size_t next = 1;
      for (const Span& span : *s.spans) store(&span, saved[next++]);
    }
    rotate(s, s.heads + s.kv_heads, -1.0f, dx, stride, data(dx), stride);
    return {dx, at::Tensor()};
  }
};

/// The rotation alone, of queries and keys in a [n, all heads * head_dim] tensor.
class Rotation : public Function<Rotation> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv,
                            const AttentionShape* shape) {
    ctx->saved_data["shape"] = reinterpret_cast<int64_t>(shape);
    return turned(qkv, *shape, 1.0f);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto* shape = reinterpret_cast<const AttentionShape*>(ctx->saved_data["shape"].toInt());
    return {turned(grads[0].contiguous(), *shape, -1.0f), at::Tensor()};
  }

 private:
  static at::Tensor turned(const at::Tensor& x, const AttentionShape& s, float direction) {
    at::Tensor out = x.clone();
    const int64_t stride = (s.heads + 2 * s.kv_heads) * s.head_dim;
    rotate(s, s.heads + s.kv_heads, direction, x, stride, data(out), stride);
    return out;
  }
};

/// Which positions of `k` [w, heads, n, d] the queries [first, first + count) see: [count, n].
at::Tensor visible(const AttentionShape& s, int64_t first, int64_t count, const at::Tensor& k) {
  const at::TensorOptions places = k.options().dtype(at::kLong);
  const at::Tensor query = at::arange(first, first + count, places).unsqueeze(1);
  const at::Tensor key = at::arange(k.size(2), places).unsqueeze(0);
  at::Tensor seen = key.le(query);
  if (s.window > 0) seen = seen.logical_and(key.gt(query - s.window));
  return seen;
}

/// Attention over q [w, heads, n, d] and k, v with as many heads. LibTorch's fused kernels know no
/// window and no cap: then in plain operators, some queries at a time so that the scores of a long
/// prompt need not be in memory at once.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionShape& s) {
  constexpr int64_t kQueries = 512;
  const double scale = s.scale > 0 ? s.scale : 1.0 / std::sqrt(static_cast<double>(s.head_dim));
  const int64_t length = q.size(2);
  if (s.cap <= 0 && (s.window == 0 || s.window >= length))
    return at::scaled_dot_product_attention(q, k, v, {}, 0.0, s.causal, scale);
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < length; first += kQueries) {
    const int64_t count = std::min(kQueries, length - first);
    at::Tensor scores = at::matmul(q.narrow(2, first, count), k.transpose(2, 3)).mul(scale);
    if (s.cap > 0) scores = scores.div(s.cap).tanh().mul(s.cap);
    if (s.causal) {
      scores = scores.masked_fill(visible(s, first, count, k).logical_not(),
                                  -std::numeric_limits<float>::infinity());
    }
    parts.push_back(at::matmul(at::softmax(scores, -1), v));
  }
  return at::cat(parts, 2);
}

/// Rounded to the 8 bits of a cache with a fixed scale.
at::Tensor cached(const at::Tensor& x, double scale) {
  return scale > 0 ? at::round(x / scale).clamp(-128, 127) * scale : x;
}

}  // namespace

at::Tensor attend_heads(const at::Tensor& turned, const AttentionShape& s) {
  const int64_t all = s.heads + 2 * s.kv_heads;
  const auto over = [&](const Span* span) {
    const auto part = [&](int64_t first, int64_t count) {
      const at::Tensor heads = heads_of(turned, s, all, first, count, span);
      return count == s.heads ? heads : heads.repeat_interleave(s.heads / count, 1);
    };
    const at::Tensor out = attend(part(0, s.heads), part(s.heads, s.kv_heads),
                                  part(s.heads + s.kv_heads, s.kv_heads), s);
    return out.transpose(1, 2).reshape({-1, s.heads * s.head_dim});
  };
  if (s.spans == nullptr) return over(nullptr);
  // Spans cover the windows in order, so their rows follow each other.
  std::vector<at::Tensor> parts;
  for (const Span& span : *s.spans) parts.push_back(over(&span));
  return at::cat(parts, 0);
}

at::Tensor rotated(const at::Tensor& qkv, const AttentionShape& s) {
  const int64_t turning = s.heads + s.kv_heads, dims = s.rope_dims, half = dims / 2;
  at::Tensor heads = qkv.view({s.windows, s.context, turning + s.kv_heads, s.head_dim});
  at::Tensor turned = heads.narrow(2, 0, turning), values = heads.narrow(2, turning, s.kv_heads);
  if (dims > 0) {
    const auto table = [&](const at::Tensor& of) {
      return of.narrow(0, 0, s.context).view({1, s.context, 1, half});
    };
    const at::Tensor cosine = table(s.cosine), sine = table(s.sine);
    const at::Tensor a = turned.narrow(3, 0, half), b = turned.narrow(3, half, half);
    turned = at::cat(
        {a * cosine - b * sine, b * cosine + a * sine, turned.narrow(3, dims, s.head_dim - dims)},
        3);
  }
  const at::Tensor queries = turned.narrow(2, 0, s.heads),
                   keys = turned.narrow(2, s.heads, s.kv_heads);
  return at::cat({queries, cached(keys, s.key_scale), cached(values, s.value_scale)}, 2)
      .view({qkv.size(0), -1});
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    Operators operators) {
  if (operators == Operators::kKernels) return RmsNorm::apply(x, weight, eps);
  return x * at::rsqrt(x.square().mean({-1}, true) + eps) * weight;
}
at::Tensor swiglu(const at::Tensor& gate_up) { return SwiGlu::apply(gate_up); }
at::Tensor activate(const at::Tensor& gate_up, Activation activation, bool gated,
                    Operators operators) {
  if (gated && activation == Activation::kSilu && operators == Operators::kKernels)
    return swiglu(gate_up);
  const int64_t width = gated ? gate_up.size(-1) / 2 : gate_up.size(-1);
  const at::Tensor x = gated ? gate_up.narrow(-1, 0, width) : gate_up;
  at::Tensor y;
  switch (activation) {
    case Activation::kSilu:
      y = at::silu(x);
      break;
    case Activation::kGelu:
      y = at::gelu(x);
      break;
    case Activation::kGeluTanh:
      y = at::gelu(x, "tanh");
      break;
    case Activation::kRelu:
      y = at::relu(x);
      break;
    case Activation::kTanh:
      y = at::tanh(x);
      break;
  }
  return gated ? y * gate_up.narrow(-1, width, width) : y;
}
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape) {
  const bool windowed = shape.window > 0 && shape.window < shape.context;
  // What the fused kernel does not have: windows, caps, other scales.
  if (windowed || shape.cap > 0 || shape.scale > 0)
    return attend_heads(shape.rope_dims > 0 ? Rotation::apply(qkv, &shape) : qkv, shape);
  return Attention::apply(qkv.contiguous(), &shape);
}

}  // namespace slmc::libtorch
