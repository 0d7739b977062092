#include "quantize/correction.h"

#include <algorithm>
#include <utility>

#include "compress/runtime/isa.h"
#include "quantize/error_feedback.h"

namespace slmc {

using kernels::kLanes;

Correction::Correction(std::vector<float> inputs, std::vector<float> outputs, int64_t width,
                       float strength)
    : width_(width), strength_(strength), outputs_(std::move(outputs)) {
  if (!inputs.empty()) panels_ = column_panels(inputs, width);
}

std::vector<float> Correction::shortfall(int64_t row, int64_t count, const float* values) const {
  const int64_t padded = (width_ + kLanes - 1) / kLanes * kLanes;
  std::vector<float> wide(static_cast<size_t>(count * padded), 0.0f);
  if (!panels_.empty()) {
    kernel_set().tile({panels_.data(), kLanes, width_ * kLanes, padded / kLanes, width_, values,
                       width_, count, wide.data(), padded, false});
  }
  std::vector<float> out(static_cast<size_t>(count * width_));
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t j = 0; j < width_; ++j) {
      float sum = wide[static_cast<size_t>(r * padded + j)];
      if (!outputs_.empty()) sum += outputs_[static_cast<size_t>((row + r) * width_ + j)];
      out[static_cast<size_t>(r * width_ + j)] = strength_ * sum;
    }
  }
  return out;
}

}  // namespace slmc
