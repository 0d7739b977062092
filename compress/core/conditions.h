// What the bits of a resumable run follow from, kept with its partial output.
#pragma once

#include <string>

#include "compress/core/json.h"

namespace slmc {

/// "" if a run under the conditions `now` continues one under `then` to the bit, else one line that
/// names what differs.
std::string conditions_difference(const Json& then, const Json& now);

}  // namespace slmc
