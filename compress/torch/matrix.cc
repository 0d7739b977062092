#include "compress/torch/matrix.h"

#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/torch/kernels.h"
#include "compress/torch/products.h"
#include "distill/training.h"

namespace slmc::libtorch {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Rows of parts that follow each other, in host memory; a single f32 one as it is.
at::Tensor decode(const std::vector<TensorView>& parts) {
  const TensorView& first = parts.front();
  if (parts.size() == 1 && first.dtype == DType::kF32 &&
      reinterpret_cast<uintptr_t>(first.data) % alignof(float) == 0) {
    const auto keep = [owner = first.owner](void*) {};
    return at::from_blob(const_cast<std::byte*>(first.data), first.shape, keep, at::kFloat);
  }
  int64_t rows = 0;
  for (const TensorView& part : parts) rows += part.rows();
  std::vector<int64_t> shape = first.shape;
  if (shape.size() > 1) shape[0] = rows;
  at::Tensor out = at::empty(shape, at::kFloat);
  float* to = out.data_ptr<float>();
  for (const TensorView& part : parts) {
    decode_all(part, to);
    to += part.elements();
  }
  return out;
}

at::Tensor values(const Matrix& matrix) {
  return matrix.resident.defined() ? matrix.resident : matrix.frozen->decoded(matrix.names);
}

/// W, with the adapters in it where zeros are kept.
at::Tensor whole(const Matrix& matrix, const MatrixUse& use) {
  at::Tensor weight = values(matrix);
  if (!use.keep_zeros || matrix.adapters.empty()) return weight;
  const at::Tensor kept = weight.ne(0).to(at::kFloat);
  at::Tensor sum = at::zeros_like(kept);
  for (const LowRank& adapter : matrix.adapters)
    sum.narrow(0, adapter.first, adapter.b.size(0)).addmm_(adapter.b, adapter.a, 1, use.scale);
  return weight + sum.mul_(kept);
}

at::Tensor times(const at::Tensor& a, const at::Tensor& b, const MatrixUse& use) {
  if (use.bf16) return multiply_as(at::kBFloat16, a, b);
  return use.striped ? striped_product(a, b) : at::mm(a, b);
}

uint64_t stream(const MatrixUse& use, uint64_t number) {
  return Random(use.seed ^ (number << 40)).next();
}

/// kernels.h's dropout in LibTorch's operators: the same elements. int64 wraps as uint64 does, only
/// shifts have to be told that there is no sign.
at::Tensor dropped_plainly(const at::Tensor& x, uint64_t stream, double p) {
  const auto word = [](uint64_t bits) { return static_cast<int64_t>(bits); };
  const auto shifted = [](const at::Tensor& z, int64_t by) {
    return at::bitwise_right_shift(z, by).bitwise_and((int64_t{1} << (64 - by)) - 1);
  };
  at::Tensor z = at::arange(1, x.numel() + 1, x.options().dtype(at::kLong))
                     .mul_(word(0x9e3779b97f4a7c15ull))
                     .add_(word(stream));
  z = z.bitwise_xor(shifted(z, 30)).mul_(word(0xbf58476d1ce4e5b9ull));
  z = z.bitwise_xor(shifted(z, 27)).mul_(word(0x94d049bb133111ebull));
  const at::Tensor out =
      shifted(z.bitwise_xor(shifted(z, 31)), 32).lt(static_cast<int64_t>(p * 0x1.0p32));
  return x.mul(static_cast<float>(1.0 / (1.0 - p))).masked_fill_(out.view_as(x), 0);
}

at::Tensor dropped(const at::Tensor& x, uint64_t stream, double p, Operators operators) {
  if (operators == Operators::kLibTorch) return dropped_plainly(x, stream, p);
  at::Tensor out = at::empty_like(x);
  dropout(x.numel(), stream, p, x.data_ptr<float>(), out.data_ptr<float>());
  return out;
}

at::Tensor dropped(const at::Tensor& x, const MatrixUse& use, const LowRank& adapter) {
  return use.dropout == 0 ? x : dropped(x, stream(use, adapter.number), use.dropout, use.operators);
}

/// Drops the same of the gradient.
class Dropped : public Function<Dropped> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, uint64_t stream, double p,
                            Operators operators) {
    ctx->saved_data["stream"] = static_cast<int64_t>(stream);
    ctx->saved_data["p"] = p;
    ctx->saved_data["operators"] = static_cast<int64_t>(operators);
    return dropped(x.contiguous(), stream, p, operators);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto stream = static_cast<uint64_t>(ctx->saved_data["stream"].toInt());
    const auto operators = static_cast<Operators>(ctx->saved_data["operators"].toInt());
    const double p = ctx->saved_data["p"].toDouble();
    return {dropped(grads[0].contiguous(), stream, p, operators), {}, {}, {}};
  }
};

/// The product with a frozen matrix and its adapters. Only x and the adapters' inner products are
/// kept for the backward pass; W is decoded again there.
class FrozenProduct : public Function<FrozenProduct> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList leaves,
                            const Matrix* matrix, const MatrixUse* use) {
    at::Tensor y = times(x, whole(*matrix, *use).t(), *use);
    variable_list kept;
    if (!matrix->adapters.empty()) kept.push_back(x);
    if (!use->keep_zeros) {
      for (const LowRank& adapter : matrix->adapters) {
        const at::Tensor inner = at::mm(dropped(x, *use, adapter), adapter.a.t());
        y.narrow(1, adapter.first, adapter.b.size(0)).addmm_(inner, adapter.b.t(), 1, use->scale);
        kept.push_back(inner);
      }
    }
    static_cast<void>(leaves);  // Here so that autograd knows of them.
    ctx->save_for_backward(kept);
    ctx->saved_data["matrix"] = reinterpret_cast<int64_t>(matrix);
    ctx->saved_data["use"] = reinterpret_cast<int64_t>(use);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& matrix = *reinterpret_cast<const Matrix*>(ctx->saved_data["matrix"].toInt());
    const auto& use = *reinterpret_cast<const MatrixUse*>(ctx->saved_data["use"].toInt());
    const variable_list kept = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    const bool wanted = ctx->needs_input_grad(0);
    at::Tensor dx = wanted ? times(dy, whole(matrix, use), use) : at::Tensor();
    variable_list out{dx};
    if (use.keep_zeros && !matrix.adapters.empty()) {
      const at::Tensor dw = times(dy.t(), kept[0], use).mul_(values(matrix).ne(0));
      for (const LowRank& adapter : matrix.adapters) {
        const at::Tensor part = dw.narrow(0, adapter.first, adapter.b.size(0));
        out.push_back(at::mm(adapter.b.t(), part).mul_(use.scale));
        out.push_back(at::mm(part, adapter.a.t()).mul_(use.scale));
      }
    } else {
      size_t next = 1;
      for (const LowRank& adapter : matrix.adapters) {
        const at::Tensor part = dy.narrow(1, adapter.first, adapter.b.size(0));
        const at::Tensor inner = at::mm(part, adapter.b).mul_(use.scale);
        out.push_back(at::mm(inner.t(), dropped(kept[0], use, adapter)));
        out.push_back(at::mm(part.t(), kept[next++]).mul_(use.scale));
        if (!wanted) continue;
        if (use.dropout == 0)
          dx.addmm_(inner, adapter.a);
        else
          dx.add_(dropped(at::mm(inner, adapter.a), use, adapter));
      }
    }
    out.resize(out.size() + 2);  // The pointers have no gradient.
    return out;
  }
};

}  // namespace

std::string head_name(const Architecture& arch) {
  if (arch.head == Head::kClassifier) return "cls.output.weight";
  return arch.tied || arch.head == Head::kStates ? "token_embd.weight" : "output.weight";
}

at::Tensor RoundedInputs::round(const at::Tensor& x) const {
  if (!rounds) return x;
  const at::Tensor step =
      scale > 0 ? at::full({1, 1}, scale, x.options()) : x.abs().amax({-1}, true).div(127.5);
  const at::Tensor rounded = at::round(x / step).clamp(-128, 127) * step;
  return at::where(step > 0, rounded, x);  // A row of zeros stays.
}

void decode_all(const TensorView& view, float* out) {
  constexpr int64_t kRows = 64;
  const int64_t columns = view.elements() / view.rows();
  parallel_ranges(view.rows(), kRows, [&](int64_t begin, int64_t end) {
    decode_rows(view, begin, end - begin, out + begin * columns);
  });
}

Frozen::Frozen(std::shared_ptr<const WeightSource> source, const ForwardPlace& place, bool once)
    : source_(std::move(source)), place_(place), keeps_(!once && place.device.is_cpu()) {
  for (const ParameterSlot& slot : parameter_layout(source_->arch()).slots)
    rows_[slot.name] = slot.shape.front();
}

bool Frozen::has(const std::string& name) const {
  const bool beside = side().prompt_tokens > 0 || side().bottleneck.width > 0;
  return (beside || rows_.contains(name)) && source_->has(name);
}

TensorView Frozen::view(const std::string& name) const {
  if (!keeps_) return source_->view(name);
  const std::lock_guard lock(mutex_);
  const auto [found, added] = views_.try_emplace(name);
  if (added) found->second = source_->view(name);
  return found->second;
}

at::Tensor Frozen::decoded(const std::vector<std::string>& names) const {
  std::vector<TensorView> parts;
  for (const std::string& name : names) parts.push_back(view(name));
  at::Tensor values = decode(parts);
  if (!keeps_)
    for (const std::string& name : names) source_->release(name);
  return values;
}

at::Tensor Frozen::decoded(const std::string& name) const {
  return decoded(std::vector{name})
      .to(place_.device, at::kFloat, /*non_blocking=*/false,
          /*copy=*/true);
}

at::Tensor Frozen::resident(const std::vector<std::string>& names) const {
  if (place_.device.is_cpu()) return {};
  return decoded(names).to(place_.device, place_.bf16 ? at::kBFloat16 : at::kFloat);
}

const at::Tensor& Frozen::head() const {
  const TensorView rows = view(head_name(source_->arch()));
  const std::lock_guard lock(mutex_);
  if (!head_.defined()) head_ = decode({rows}).to(place_.device);
  return head_;
}

at::Tensor multiply_as(at::ScalarType type, const at::Tensor& a, const at::Tensor& b) {
  return at::mm(a.to(type), b.to(type)).to(at::kFloat);
}

at::Tensor drop(const at::Tensor& x, const MatrixUse& use, uint64_t number) {
  return use.dropout == 0 ? x : Dropped::apply(x, stream(use, number), use.dropout, use.operators);
}

at::Tensor multiply(const at::Tensor& x, const Matrix& matrix, const MatrixUse& use) {
  if (matrix.leaf.defined()) return at::mm(x, matrix.leaf.t());
  variable_list leaves;
  for (const LowRank& adapter : matrix.adapters) {
    leaves.push_back(adapter.a);
    leaves.push_back(adapter.b);
  }
  return FrozenProduct::apply(x, at::TensorList(leaves), &matrix, &use);
}

}  // namespace slmc::libtorch
