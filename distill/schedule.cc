#include "distill/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

Decay decay_from_name(const std::string& name) {
  if (name == "cosine") return Decay::kCosine;
  if (name == "linear") return Decay::kLinear;
  if (name == "constant") return Decay::kConstant;
  if (name == "wsd") return Decay::kLate;
  throw_usage(cat("schedule: expected cosine, linear, constant or wsd, found '", name, "'",
                  did_you_mean(name, {"cosine", "linear", "constant", "wsd"})));
}

double LearningRate::at(int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  const double t = std::clamp(static_cast<double>(step - warmup) /
                                  static_cast<double>(std::max<int64_t>(1, steps - 1 - warmup)),
                              0.0, 1.0);
  switch (decay) {
    case Decay::kConstant:
      return peak;
    case Decay::kLinear:
      return peak * (1.0 - (1.0 - min_ratio) * t);
    case Decay::kLate: {
      const int64_t stable = steps - decay_steps;
      if (step < stable) return peak;
      return peak * (1.0 - (1.0 - min_ratio) * static_cast<double>(step - stable + 1) /
                               static_cast<double>(decay_steps));
    }
    case Decay::kCosine:
      break;
  }
  return peak * (min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + std::cos(std::numbers::pi * t)));
}

}  // namespace slmc
