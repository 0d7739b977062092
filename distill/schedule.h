// The learning rate as a function of the step.
#pragma once

#include <cstdint>
#include <string>

namespace slmc {

enum class Decay { kCosine, kLinear, kConstant, kLate };
/// "cosine", "linear", "constant", "wsd" (warm-up, stable, decay). Throws Error(kUsage).
Decay decay_from_name(const std::string& name);

struct LearningRate {
  double peak = 1e-3;
  double min_ratio = 0.1;  ///< Last step's rate / peak.
  int64_t warmup = 0;      ///< Steps of linear rise.
  int64_t steps = 1;
  Decay decay = Decay::kCosine;
  int64_t decay_steps = 0;  ///< kLate: the last steps, over which the rate falls.

  /// Rate of step `step` in [0, steps). Warm-up: peak * (step + 1) / (warmup + 1), so the first
  /// step already learns; then with t = (step - warmup) / max(1, steps - 1 - warmup): cosine peak *
  /// (min + (1 - min) * (1 + cos(pi t)) / 2), linear peak * (1 - (1 - min) t). kLate (Hu et al.
  /// 2024, MiniCPM) holds the peak and falls linearly, to the minimum at the last step.
  double at(int64_t step) const;
};

}  // namespace slmc
