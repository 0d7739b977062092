#include "compress/torch/products.h"

#include <algorithm>

#include "compress/core/parallel.h"
#include "compress/torch/precompiled.h"

namespace slmc::libtorch {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Wide enough for LibTorch's product to be efficient, narrow enough for a small matrix to give
/// work to some threads.
constexpr int64_t kStripe = 256;

class StripedLinear : public Function<StripedLinear> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight) {
    ctx->save_for_backward({x, weight});
    return striped_product(x, weight.t());
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    variable_list out(2);
    if (ctx->needs_input_grad(0)) out[0] = striped_product(dy, saved[1]);
    if (ctx->needs_input_grad(1)) out[1] = striped_product(dy.t(), saved[0]);
    return out;
  }
};

}  // namespace

void multiply_striped(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool add) {
  const bool rows = out.size(0) > out.size(1);
  parallel_ranges(rows ? out.size(0) : out.size(1), kStripe, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // Threads have their own.
    at::Tensor stripe = out.narrow(rows ? 0 : 1, begin, end - begin);
    const at::Tensor left = rows ? a.narrow(0, begin, end - begin) : a;
    const at::Tensor right = rows ? b : b.narrow(1, begin, end - begin);
    if (add)
      stripe.addmm_(left, right);
    else
      at::mm_out(stripe, left, right);
  });
}

at::Tensor striped_product(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options().requires_grad(false));
  multiply_striped(out, a, b);
  return out;
}

at::Tensor striped_linear(const at::Tensor& x, const at::Tensor& weight) {
  return StripedLinear::apply(x, weight);
}

}  // namespace slmc::libtorch
