// What `generate` and `chat` have in common: how tokens are chosen, and variables for the chat
// template.
#pragma once

#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/json.h"
#include "compress/runtime/sampler.h"

namespace slmc {

void visit_sampling(Fields& fields, SamplingOptions& sampling, std::string& activations);
void visit_template_options(Fields& fields, std::vector<std::string>& options);
/// "enable_thinking=false" as {"enable_thinking": false}: a value is JSON, else a string. Throws
/// Error(kUsage).
Json parse_template_options(const std::vector<std::string>& options);

}  // namespace slmc
