#include "quantize/input_statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/isa.h"

namespace slmc {
namespace {

using kernels::kLanes;

constexpr int64_t kSpan = 512;  // Tokens whose products are taken at once.

}  // namespace

InputStatistics::InputStatistics(std::string name, int64_t width, bool hessian)
    : name_(std::move(name)),
      width_(width),
      padded_((width + kLanes - 1) / kLanes * kLanes),
      sums_(static_cast<size_t>(width), 0.0),
      squares_(static_cast<size_t>(width), 0.0),
      magnitudes_(static_cast<size_t>(width), 0.0),
      peaks_(static_cast<size_t>(width), 0.0f) {
  if (hessian) hessian_.assign(static_cast<size_t>(width_ * padded_), 0.0f);
}

void InputStatistics::check(const float* x, int64_t tokens) const {
  for (int64_t i = 0; i < tokens * width_; ++i) {
    if (std::isfinite(x[i])) continue;
    throw_bad_input(cat("calibration: the input of ", name_, " is ", x[i], " at token ",
                        tokens_ + i / width_, ", channel ", i % width_,
                        "; expected finite activations; the checkpoint is damaged, or its values "
                        "overflow on this text"));
  }
}

void InputStatistics::add(const float* x, int64_t tokens) {
  check(x, tokens);
  parallel_ranges(width_, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = x + t * width_;
      for (int64_t i = begin; i < end; ++i) {
        const double value = row[i];
        sums_[static_cast<size_t>(i)] += value;
        squares_[static_cast<size_t>(i)] += value * value;
        magnitudes_[static_cast<size_t>(i)] += std::fabs(value);
        peaks_[static_cast<size_t>(i)] =
            std::max(peaks_[static_cast<size_t>(i)], std::fabs(row[i]));
      }
    }
  });
  if (counted_) histogram_.add(x, tokens * width_);
  if (!hessian_.empty()) {
    for (int64_t first = 0; first < tokens; first += kSpan)
      add_products(x + first * width_, width_, x + first * width_, std::min(kSpan, tokens - first),
                   true, hessian_);
  }
  tokens_ += tokens;
}

void InputStatistics::add_cross(const float* difference, int64_t height, const float* x,
                                int64_t tokens) {
  if (cross_.empty()) cross_.assign(static_cast<size_t>(height * padded_), 0.0f);
  cross_tokens_ += tokens;
  for (int64_t first = 0; first < tokens; first += kSpan)
    add_products(difference + first * height, height, x + first * width_,
                 std::min(kSpan, tokens - first), false, cross_);
}

InputStatistics::Sums InputStatistics::sums(int64_t height) {
  if (height > 0 && cross_.empty()) cross_.assign(static_cast<size_t>(height * padded_), 0.0f);
  return {.values = sums_.data(),
          .squares = squares_.data(),
          .magnitudes = magnitudes_.data(),
          .peaks = peaks_.data(),
          .products = hessian_.empty() ? nullptr : hessian_.data(),
          .cross = height > 0 ? cross_.data() : nullptr,
          .stride = padded_};
}

void InputStatistics::added(int64_t tokens, int64_t cross_tokens) {
  tokens_ += tokens;
  cross_tokens_ += cross_tokens;
}

std::vector<float> InputStatistics::finish_cross() {
  const auto height = static_cast<int64_t>(cross_.size()) / padded_;
  const auto scale =
      static_cast<float>(1.0 / static_cast<double>(std::max<int64_t>(1, cross_tokens_)));
  for (int64_t i = 0; i < height; ++i) {
    for (int64_t j = 0; j < width_; ++j)
      cross_[static_cast<size_t>(i * width_ + j)] =
          cross_[static_cast<size_t>(i * padded_ + j)] * scale;
  }
  cross_.resize(static_cast<size_t>(height * width_));
  return std::move(cross_);
}

// sums[i][j] += sum over tokens of left[t][i] * x[t][j]; where that is symmetric, only for j from
// i's panel on. The kernel's "weights" are panels of 16 channels, its "rows of activations" the
// left side's channels as rows of tokens.
void InputStatistics::add_products(const float* left, int64_t height, const float* x,
                                   int64_t tokens, bool symmetric, std::vector<float>& sums) {
  const int64_t panels = padded_ / kLanes;
  panels_.assign(static_cast<size_t>(padded_ * tokens), 0.0f);
  columns_.resize(static_cast<size_t>(height * tokens));
  parallel_for(panels, [&](int64_t p) {
    const int64_t lanes = std::min(kLanes, width_ - p * kLanes);
    float* panel = panels_.data() + p * kLanes * tokens;
    for (int64_t t = 0; t < tokens; ++t)
      std::copy_n(x + t * width_ + p * kLanes, lanes, panel + t * kLanes);
  });
  constexpr int64_t kRows = 64;
  parallel_for((height + kRows - 1) / kRows, [&](int64_t block) {
    const int64_t row = block * kRows, count = std::min(kRows, height - row);
    const int64_t first_panel = symmetric ? row / kLanes : 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = row; i < row + count; ++i)
        columns_[static_cast<size_t>(i * tokens + t)] = left[t * height + i];
    }
    kernel_set().tile({panels_.data() + first_panel * kLanes * tokens, kLanes, kLanes * tokens,
                       panels - first_panel, tokens, columns_.data() + row * tokens, tokens, count,
                       sums.data() + row * padded_ + first_panel * kLanes, padded_, true});
  });
}

LinearStatistics InputStatistics::finish() && {
  LinearStatistics out;
  out.tokens = tokens_;
  const double count = static_cast<double>(std::max<int64_t>(1, tokens_));
  for (int64_t i = 0; i < width_; ++i) {
    out.input_means.push_back(static_cast<float>(sums_[static_cast<size_t>(i)] / count));
    out.input_squares.push_back(static_cast<float>(squares_[static_cast<size_t>(i)] / count));
    out.input_magnitudes.push_back(static_cast<float>(magnitudes_[static_cast<size_t>(i)] / count));
  }
  out.input_peaks = std::move(peaks_);
  if (hessian_.empty()) return out;
  const auto scale = static_cast<float>(1.0 / count);
  // In place: rows move to their final stride, then the upper half is mirrored.
  for (int64_t i = 0; i < width_; ++i) {
    for (int64_t j = 0; j < width_; ++j)
      hessian_[static_cast<size_t>(i * width_ + j)] =
          hessian_[static_cast<size_t>(i * padded_ + j)] * scale;
  }
  hessian_.resize(static_cast<size_t>(width_ * width_));
  for (int64_t i = 0; i < width_; ++i) {
    for (int64_t j = 0; j < i; ++j)
      hessian_[static_cast<size_t>(i * width_ + j)] = hessian_[static_cast<size_t>(j * width_ + i)];
  }
  out.hessian = std::move(hessian_);
  panels_ = {};
  columns_ = {};
  return out;
}

}  // namespace slmc
