// Matrix products on all threads whose bits do not depend on how many there are: the result falls
// into stripes of a fixed width, each of which one thread makes alone.
#pragma once

#include <ATen/core/Tensor.h>

namespace slmc::libtorch {

/// out = a b, or out += a b. a [n, k], b [k, m], out [n, m]; stripes of its longer side.
void multiply_striped(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool add = false);
/// a b, the same.
at::Tensor striped_product(const at::Tensor& a, const at::Tensor& b);
/// x W^T with gradients for both, x [n, columns], W [rows, columns].
at::Tensor striped_linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace slmc::libtorch
