// Fixed scales for keys and values that are kept in 8 bits, found on calibration text.
#pragma once

#include <string>

#include "compress/core/stage.h"
#include "quantize/calibrated.h"
#include "quantize/scaled_weights.h"

namespace slmc {

/// Runs the model over the job's windows and gives `weights` scales by what attention is given of
/// them (ScaledWeights::fix_cache), numbers that f16 and bf16 both hold; notes them for the report.
/// `observer`: a name, or empty for minmax. Throws Error(kBadInput) naming the block whose keys or
/// values are all zero.
void fix_cache(const std::string& observer, CalibratedJob& job, ScaledWeights& weights,
               Context& context);

}  // namespace slmc
