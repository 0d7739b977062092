// What the quantize stage says of its work, tensor by tensor.
#pragma once

#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model_writer.h"
#include "quantize/calibrated.h"

namespace slmc {

/// Adds "tensors" (a row each: types, method asked and used, errors, what calibration found) and,
/// summed, "types".
void report_tensors(const Plan& plan, const std::vector<TensorOutcome>& outcomes,
                    const std::string& method, const ModelWriter& writer, Report& report);
/// The report in a few lines for people.
Json summary_lines(const Report& report);

}  // namespace slmc
