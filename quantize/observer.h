// An observer: from how large a layer's inputs are over calibration text to the largest magnitude
// that 8 bits shall reach. One file under quantize/observers/ defines `const Observer&
// slmc::observer_<file>()`; the build finds it.
#pragma once

#include <string>
#include <vector>

#include "quantize/input_histogram.h"

namespace slmc {

struct Observer {
  std::string name;  ///< "minmax": the value of --observer.
  std::string summary;
  /// `inputs` has values other than zero. The result is positive and at most its peak.
  double (*threshold)(const InputHistogram& inputs) = nullptr;
};

/// Codes are -128 to 127; compressed-tensors' scale is the largest magnitude over 127.5.
inline constexpr double kInputSteps = 127.5;

const std::vector<const Observer*>& observers();
/// Throws Error(kUsage) naming the nearest known observer.
const Observer& observer_by_name(const std::string& name);
std::vector<std::string> observer_names();

/// The scale of what goes into `layer`, or of its keys or values. Throws Error(kBadInput) naming
/// `layer` if all were zero.
float observed_scale(const Observer& observer, const InputHistogram& inputs,
                     const std::string& layer);

}  // namespace slmc
