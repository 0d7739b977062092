// AWQ (Lin et al. 2023): channels whose inputs are large are rounded as if they were finer, because
// their weights are scaled up and their inputs down before. s = m^alpha with m the mean magnitude
// of each input (section 3.2, equation 5), and alpha of a grid of 20 such that the layers' outputs
// lose least. That loss is computed exactly, as tr(E H E^T) with H the inputs' second moment, in
// place of running the inputs through the layers. Its clipping is the search of `nearest`, with
// errors weighted by the inputs' squares. What it gives is a plain model, so that gptq can round it
// (--method gptq --smooth awq).
#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/runtime/isa.h"
#include "quantize/method.h"

namespace slmc {
namespace {

using kernels::kLanes;

constexpr int64_t kSteps = 20;  // alpha = 0, 1/20, ... 19/20
constexpr int64_t kRows = 32;   // Of a layer, tried together by one thread.

/// m^alpha, then divided by sqrt(largest * smallest) so that scales lie around one.
std::vector<float> scales_for(const std::vector<float>& magnitudes, double alpha) {
  std::vector<double> scales;
  double least = 0, most = 0;
  for (const float magnitude : magnitudes) {
    scales.push_back(std::max(std::pow(static_cast<double>(magnitude), alpha), 1e-4));
    least = scales.size() == 1 ? scales.back() : std::min(least, scales.back());
    most = std::max(most, scales.back());
  }
  const double middle = std::sqrt(least * most);
  std::vector<float> out;
  for (const double scale : scales) out.push_back(static_cast<float>(scale / middle));
  return out;
}

/// tr(E H E^T) of rows [row, row + count) of a layer.
double loss_of(const SmoothRequest& request, const SmoothRequest::Layer& layer,
               const std::vector<float>& scales, const LinearStatistics& scaled, int64_t row,
               int64_t count) {
  const int64_t n = request.columns;
  const auto size = static_cast<size_t>(count * n);
  std::vector<float> values(size), lost(size), product(size, 0.0f);
  for (int64_t i = 0; i < count * n; ++i)
    values[static_cast<size_t>(i)] = layer.weight[row * n + i] * scales[static_cast<size_t>(i % n)];
  std::vector<std::byte> encoded(dtype_row_bytes(layer.grid->dtype, n) *
                                 static_cast<size_t>(count));
  Distortion ignored{};
  method_by_name("nearest").encode({.weight = values.data(),
                                    .rows = count,
                                    .columns = n,
                                    .grid = layer.grid,
                                    .statistics = &scaled,
                                    .kernels = request.kernels},
                                   encoded.data(), &ignored);
  layer.grid->decode(encoded.data(), count * n, lost.data());
  for (int64_t i = 0; i < count * n; ++i) {
    float& item = lost[static_cast<size_t>(i)];
    item = item / scales[static_cast<size_t>(i % n)] - layer.weight[row * n + i];
  }
  kernel_set().tile({request.statistics->hessian.data(), n, kLanes, n / kLanes, n, lost.data(), n,
                     count, product.data(), n, false});
  double sum = 0;
  for (size_t i = 0; i < size; ++i)
    sum += static_cast<double>(lost[i]) * static_cast<double>(product[i]);
  return sum;
}

double loss_of(const SmoothRequest& request, const std::vector<float>& scales) {
  LinearStatistics scaled;
  scaled.tokens = request.statistics->tokens;
  for (size_t i = 0; i < scales.size(); ++i)
    scaled.input_squares.push_back(request.statistics->input_squares[i] / (scales[i] * scales[i]));
  double sum = 0;
  for (const SmoothRequest::Layer& layer : request.layers) {
    if (layer.grid->layout == nullptr) continue;
    const int64_t batches = (layer.rows + kRows - 1) / kRows;
    std::vector<double> parts(static_cast<size_t>(batches));
    parallel_for(batches, [&](int64_t b) {
      const int64_t row = b * kRows;
      parts[static_cast<size_t>(b)] =
          loss_of(request, layer, scales, scaled, row, std::min(kRows, layer.rows - row));
    });
    for (const double part : parts) sum += part;
  }
  return sum;
}

std::vector<float> smooth(const SmoothRequest& request, Json& facts) {
  SLMC_CHECK(request.columns % kLanes == 0, "quantized rows are whole blocks");
  const std::vector<float> magnitudes =
      tied_means(request.statistics->input_magnitudes, request.tied);
  std::vector<float> best;
  double least = 0, plain = 0, alpha = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    const double tried = static_cast<double>(step) / static_cast<double>(kSteps);
    const std::vector<float> scales = scales_for(magnitudes, tried);
    const double loss = loss_of(request, scales);
    if (step == 0) plain = loss;
    if (step > 0 && !(loss < least)) continue;
    least = loss;
    alpha = tried;
    best = scales;
  }
  facts["smoothing_alpha"] = alpha;
  facts["smoothing_gain"] = plain > 0 ? 1.0 - least / plain : 0.0;
  return best;
}

void encode(const EncodeRequest& request, std::byte* out, Distortion* error) {
  method_by_name("imatrix").encode(request, out, error);
}

}  // namespace

const Method& method_awq();
const Method& method_awq() {
  static const Method method = {
      .name = "awq",
      .summary = "channels with large inputs scaled up before rounding, by a search",
      .needs = {Statistic::kInputSquares},
      .needs_grid = true,
      .encode = &encode,
      .smooth = &smooth,
      .smooth_needs = {Statistic::kHessian},
      .smooths_linear = true};
  return method;
}

}  // namespace slmc
