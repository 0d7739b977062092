// What a quantization method or a prune metric may ask to know about a linear layer's inputs,
// gathered over calibration tokens.
#pragma once

#include <cstdint>
#include <vector>

namespace slmc {

enum class Statistic { kInputSquares, kInputMeans, kHessian, kGradients };

/// Of one linear layer with weight [out, in]. Only what was declared is filled.
struct LinearStatistics {
  int64_t tokens = 0;                     ///< How many were seen.
  std::vector<float> input_squares{};     ///< [in]: mean over tokens of x^2.
  std::vector<float> input_means{};       ///< [in]: mean over tokens of x.
  std::vector<float> input_magnitudes{};  ///< [in]: mean over tokens of |x|; with input_squares.
  std::vector<float> input_peaks{};       ///< [in]: largest |x|; with input_squares.
  std::vector<float> hessian{};           ///< [in, in]: mean over tokens of x x^T.
  std::vector<float> gradients{};         ///< [out, in]: mean over batches of the squared gradient.
};

}  // namespace slmc
