// AWQ (Lin et al. 2023): channels whose inputs are large are rounded as if they were finer, because
// their weights are scaled up and their inputs down before. s = m^alpha (section 3.2, equation 5)
// or, as the authors' program has it too, s = m^alpha / w^(1 - alpha), with m the mean magnitude of
// each input and w that of its weights, each as a part of the largest that shares its scale. Alpha
// is of a grid of 20, the form of these two, whichever lets the layers' outputs lose least. Then
// the largest weights of each scale are clipped as far as that makes the outputs lose less. All
// losses are computed exactly, as tr(E H E^T) with H the inputs' second moment, in place of running
// the inputs through the layers. Scaling gives a plain model, so gptq can round it too (--method
// gptq
// --smooth awq); clipping belongs to awq's own rounding.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/runtime/isa.h"
#include "formats/group_types.h"
#include "quantize/method.h"

namespace slmc {
namespace {

using kernels::kLanes;

constexpr int64_t kSteps = 20;     // alpha = 0, 1/20, ... 19/20
constexpr int64_t kRows = 32;      // Of a layer, tried together by one thread.
constexpr int64_t kSampled = 512;  // Rows of a layer, evenly spaced, that the scales are tried on.
constexpr int kClips = 10;         // The largest weight times 1, 0.95, ... 0.55.

/// Columns that share a scale.
int64_t scale_columns(const BlockCodec& grid, int64_t columns) {
  if (!is_group_type(grid.dtype)) return grid.layout->sub;
  return group_facts(grid.dtype).group > 0 ? grid.block : columns;
}

/// Mean over all rows of |w| as a part of the largest that shares its scale.
std::vector<float> weight_magnitudes(const SmoothRequest& request) {
  std::vector<double> sums(static_cast<size_t>(request.columns), 0.0);
  int64_t rows = 0;
  for (const SmoothRequest::Layer& layer : request.layers) {
    if (layer.grid->layout == nullptr) continue;
    const int64_t span = scale_columns(*layer.grid, request.columns);
    rows += layer.rows;
    for (int64_t i = 0; i < layer.rows * request.columns; i += span) {
      float largest = 0;
      for (int64_t j = i; j < i + span; ++j)
        largest = std::max(largest, std::fabs(layer.weight[j]));
      for (int64_t j = i; j < i + span; ++j)
        sums[static_cast<size_t>(j % request.columns)] +=
            largest > 0 ? std::fabs(static_cast<double>(layer.weight[j])) / largest : 0.0;
    }
  }
  std::vector<float> means;
  for (const double sum : sums)
    means.push_back(static_cast<float>(sum / static_cast<double>(std::max<int64_t>(1, rows))));
  return means;
}

/// m^alpha, over w^(1 - alpha) unless `weights` is empty, then divided by sqrt(largest * smallest)
/// so that scales lie around one.
std::vector<float> scales_for(const std::vector<float>& inputs, const std::vector<float>& weights,
                              double alpha) {
  std::vector<double> scales;
  for (size_t i = 0; i < inputs.size(); ++i) {
    double scale = std::pow(static_cast<double>(inputs[i]), alpha);
    if (!weights.empty()) scale /= std::pow(static_cast<double>(weights[i]), 1 - alpha) + 1e-4;
    scales.push_back(std::max(scale, 1e-4));
  }
  const auto [least, most] = std::minmax_element(scales.begin(), scales.end());
  const double middle = std::sqrt(*least * *most);
  std::vector<float> out;
  for (const double scale : scales) out.push_back(static_cast<float>(scale / middle));
  return out;
}

/// product = lost H for columns [first, first + span) of both alone; rows are `columns` apart.
void multiply_span(const std::vector<float>& hessian, int64_t columns, int64_t first, int64_t span,
                   const float* lost, int64_t rows, float* product) {
  kernel_set().tile({hessian.data() + first * columns + first, columns, kLanes, span / kLanes, span,
                     lost + first, columns, rows, product + first, columns, false});
}

/// Encodes and decodes rows; what came of each weight.
void round_trip(const EncodeRequest& request, std::byte* encoded, float* values) {
  Distortion ignored{};
  method_by_name("nearest").encode(request, encoded, &ignored);
  request.grid->decode(encoded, request.rows * request.columns, values);
}

/// tr(E H E^T) of some rows of a layer.
double loss_of(const SmoothRequest& request, const SmoothRequest::Layer& layer,
               const std::vector<float>& scales, const LinearStatistics& scaled,
               const std::vector<int64_t>& rows) {
  const int64_t n = request.columns, count = std::ssize(rows);
  const auto size = static_cast<size_t>(count * n);
  std::vector<float> values(size), lost(size), product(size, 0.0f);
  const auto weight = [&](size_t i) {
    const auto at = static_cast<int64_t>(i);
    return layer.weight[rows[static_cast<size_t>(at / n)] * n + at % n];
  };
  for (size_t i = 0; i < size; ++i) values[i] = weight(i) * scales[i % static_cast<size_t>(n)];
  std::vector<std::byte> encoded(dtype_row_bytes(layer.grid->dtype, n) *
                                 static_cast<size_t>(count));
  round_trip({.weight = values.data(),
              .rows = count,
              .columns = n,
              .grid = layer.grid,
              .statistics = &scaled,
              .kernels = request.kernels},
             encoded.data(), lost.data());
  for (size_t i = 0; i < size; ++i)
    lost[i] = lost[i] / scales[i % static_cast<size_t>(n)] - weight(i);
  multiply_span(request.statistics->hessian, n, 0, n, lost.data(), count, product.data());
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
    const int64_t sampled = std::min(kSampled, layer.rows), batches = (sampled + kRows - 1) / kRows;
    std::vector<double> parts(static_cast<size_t>(batches));
    parallel_for(batches, [&](int64_t b) {
      std::vector<int64_t> rows;
      for (int64_t i = b * kRows; i < std::min((b + 1) * kRows, sampled); ++i)
        rows.push_back(i * layer.rows / sampled);
      parts[static_cast<size_t>(b)] = loss_of(request, layer, scales, scaled, rows);
    });
    double of_layer = 0;
    for (const double part : parts) of_layer += part;
    sum += of_layer * static_cast<double>(layer.rows) / static_cast<double>(sampled);
  }
  return sum;
}

std::vector<float> smooth(const SmoothRequest& request, Json& facts) {
  SLMC_CHECK(request.columns % kLanes == 0, "quantized rows are whole blocks");
  const std::vector<float> inputs = tied_means(request.statistics->input_magnitudes, request.tied),
                           weights = tied_means(weight_magnitudes(request), request.tied);
  // alpha 0 without the weights' part: nothing is scaled.
  std::vector<float> best = scales_for(inputs, {}, 0);
  const double plain = loss_of(request, best);
  double least = plain, alpha = 0;
  bool by_weights = false;
  for (const bool duo : {false, true}) {
    for (int64_t step = duo ? 0 : 1; step < kSteps; ++step) {
      const double tried = static_cast<double>(step) / static_cast<double>(kSteps);
      std::vector<float> scales = scales_for(inputs, duo ? weights : std::vector<float>(), tried);
      const double loss = loss_of(request, scales);
      if (!(loss < least)) continue;
      least = loss;
      alpha = tried;
      by_weights = duo;
      best = std::move(scales);
    }
  }
  facts["smoothing_alpha"] = alpha;
  facts["smoothing_by_weights"] = by_weights;
  facts["smoothing_gain"] = plain > 0 ? 1.0 - least / plain : 0.0;
  return best;
}

/// Rows whose largest weights, by scale, are multiplied by `factor`, and all others cut off there.
void clip(const EncodeRequest& request, float factor, std::vector<float>& clipped) {
  const int64_t span = scale_columns(*request.grid, request.columns);
  for (int64_t first = 0; first < request.rows * request.columns; first += span) {
    float largest = 0;
    for (int64_t i = first; i < first + span; ++i)
      largest = std::max(largest, std::fabs(request.weight[i]));
    for (int64_t i = first; i < first + span; ++i)
      clipped[static_cast<size_t>(i)] =
          std::clamp(request.weight[i], -largest * factor, largest * factor);
  }
}

/// For each row and piece of columns whose bytes stand alone, the clipping whose rounding loses
/// least of the piece's share in the output.
void encode(const EncodeRequest& request, std::byte* out, Distortion* error) {
  const int64_t n = request.columns;
  const int64_t span = std::max(request.grid->block, scale_columns(*request.grid, n));
  const size_t row_bytes = dtype_row_bytes(request.grid->dtype, n),
               span_bytes = dtype_row_bytes(request.grid->dtype, span),
               size = static_cast<size_t>(request.rows * n);
  std::vector<float> clipped(size), lost(size), product(size);
  std::vector<double> least(static_cast<size_t>(request.rows * (n / span)));
  std::vector<std::byte> trial(row_bytes * static_cast<size_t>(request.rows));
  EncodeRequest tried = request;
  tried.weight = clipped.data();
  for (int step = 0; step < kClips; ++step) {
    clip(request, 1.0f - 0.05f * static_cast<float>(step), clipped);
    round_trip(tried, trial.data(), lost.data());
    for (size_t i = 0; i < size; ++i) lost[i] -= request.weight[i];
    for (int64_t first = 0; first < n; first += span)
      multiply_span(request.statistics->hessian, n, first, span, lost.data(), request.rows,
                    product.data());
    for (size_t piece = 0; piece < least.size(); ++piece) {
      double sum = 0;
      for (size_t i = piece * static_cast<size_t>(span);
           i < (piece + 1) * static_cast<size_t>(span); ++i)
        sum += static_cast<double>(lost[i]) * static_cast<double>(product[i]);
      if (step > 0 && !(sum < least[piece])) continue;
      least[piece] = sum;
      std::memcpy(out + piece * span_bytes, trial.data() + piece * span_bytes, span_bytes);
    }
  }
  for (int64_t row = 0; row < request.rows; ++row)
    add_distortion(*request.kernels, *request.grid, request.weight + row * n,
                   out + static_cast<size_t>(row) * row_bytes, n, clipped.data(), error);
}

}  // namespace

const Method& method_awq();
const Method& method_awq() {
  static const Method method = {
      .name = "awq",
      .summary = "channels with large inputs scaled up and large weights clipped, by a search",
      .needs = {Statistic::kHessian, Statistic::kInputSquares},
      .needs_grid = true,
      .encode = &encode,
      .smooth = &smooth,
      .smooth_needs = {Statistic::kHessian},
      .smooths_linear = true};
  return method;
}

}  // namespace slmc
