// What commands that run a model have in common: which one, its arithmetic, how tokens are chosen,
// and variables for the chat template.
#pragma once

#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/json.h"
#include "compress/runtime/sampler.h"

namespace slmc {

void visit_model(Fields& fields, std::string& model);
/// "f32" or "q8".
void visit_activations(Fields& fields, std::string& activations);
void visit_sampling(Fields& fields, SamplingOptions& sampling);
void visit_template_options(Fields& fields, std::vector<std::string>& options);
/// "enable_thinking=false" as {"enable_thinking": false}: a value is JSON, else a string. Throws
/// Error(kUsage).
Json parse_template_options(const std::vector<std::string>& options);

}  // namespace slmc
