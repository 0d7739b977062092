// What earlier layers lost, as a wish to later ones: a layer's inputs behind quantized layers
// differ from the original model's, and so does the residual stream it adds to. Least squares says
// how far its weights can make that good (the targets of GPTQ moved as in GPTAQ, Li et al. 2025,
// equation 4, and for layers that write into the stream by the stream's own difference too).
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/input_statistics.h"

namespace slmc {

class Correction {
 public:
  Correction() = default;
  /// `inputs` [width][width]: mean of (original input - input) input^T, or empty. `outputs`
  /// [out][width]: mean of (what is missing in the output besides) input^T, or empty. `strength`
  /// in (0, 1]: how much of both is wished for.
  Correction(std::vector<float> inputs, std::vector<float> outputs, int64_t width, float strength);

  bool empty() const { return panels_.empty() && outputs_.empty(); }
  /// For rows [row, row + count) of the weight, `values` [count][width]: the mean over tokens of
  /// (wanted output - output) input^T, [count][width].
  std::vector<float> shortfall(int64_t row, int64_t count, const float* values) const;

 private:
  int64_t width_ = 0;
  float strength_ = 1;
  std::vector<float> panels_;   // `inputs` as panels of 16 columns, [p][width][16].
  std::vector<float> outputs_;  // [out][width]
};

}  // namespace slmc
