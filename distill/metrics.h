// metrics.jsonl: a JSON line for each step that is logged and each measurement.
#pragma once

#include <cstdint>
#include <string>

#include "compress/core/json.h"

namespace slmc {

/// A new run starts its log anew; one resumed at `step` forgets the lines of steps that it will do
/// again. "" is no log, here and below.
void trim_metrics(const std::string& path, int64_t step);
void append_metrics(const std::string& path, const Json& line);

}  // namespace slmc
