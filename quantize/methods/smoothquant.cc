// SmoothQuant (Xiao et al. 2022): for layers whose inputs are rounded too (w8a8), the largest
// inputs are made smaller and the weights' columns larger, s = max|x|^alpha / max|w|^(1 - alpha)
// (equation 4), folded into the norm before. Then rounding to nearest.
#include <algorithm>
#include <cmath>
#include <vector>

#include "quantize/method.h"

namespace slmc {
namespace {

constexpr double kAlpha = 0.5;  // Section 4.3.

std::vector<float> smooth(const SmoothRequest& request, Json& facts) {
  const double alpha = request.options->smooth_alpha >= 0 ? request.options->smooth_alpha : kAlpha;
  std::vector<float> scales;
  for (int64_t c = 0; c < request.columns; ++c) {
    double weight = 0;
    for (const SmoothRequest::Layer& layer : request.layers) {
      for (int64_t r = 0; r < layer.rows; ++r)
        weight =
            std::max(weight, std::fabs(static_cast<double>(layer.weight[r * request.columns + c])));
    }
    const double input = request.statistics->input_peaks[static_cast<size_t>(c)];
    // A channel without inputs or weights has nothing to smooth.
    const double scale =
        input > 0 && weight > 0 ? std::pow(input, alpha) / std::pow(weight, 1 - alpha) : 1.0;
    scales.push_back(static_cast<float>(std::max(scale, 1e-5)));
  }
  facts["smoothing_alpha"] = alpha;
  return scales;
}

void encode(const EncodeRequest& request, std::byte* out, Distortion* error) {
  method_by_name("nearest").encode(request, out, error);
}

}  // namespace

const Method& method_smoothquant();
const Method& method_smoothquant() {
  static const Method method = {
      .name = "smoothquant",
      .summary = "scale moved from the inputs to the weights for w8a8, then nearest",
      .needs = {},
      .encode = &encode,
      .smooth = &smooth};
  return method;
}

}  // namespace slmc
