#include "compress/cli/model_options.h"

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

void visit_model(Fields& fields, std::string& model) {
  fields.visit({.name = "model",
                .help = "Hugging Face folder or GGUF file.",
                .required = true,
                .positional = true,
                .value_name = "MODEL"},
               model);
}

void visit_activations(Fields& fields, std::string& activations) {
  fields.visit({.name = "activations",
                .help = "int8 activations for quantized weights, or f32.",
                .choices = {"f32", "q8"}},
               activations);
}

void visit_sampling(Fields& fields, SamplingOptions& sampling) {
  fields.visit({.name = "temperature",
                .help = "0 takes the likeliest token; 1 samples the model's distribution.",
                .min = 0,
                .max = 100},
               sampling.temperature);
  fields.visit({.name = "top_k",
                .help = "Sample among the N likeliest tokens; 0 is all.",
                .min = 0,
                .value_name = "N"},
               sampling.top_k);
  fields.visit({.name = "top_p",
                .help = "Sample among the likeliest tokens that together have this probability.",
                .min = 1e-9,
                .max = 1},
               sampling.top_p);
  fields.visit({.name = "min_p",
                .help = "Leave out tokens below this share of the likeliest one's probability.",
                .min = 0,
                .max = 1},
               sampling.min_p);
  fields.visit({.name = "repeat_penalty",
                .help = "Above 1 makes tokens of the text so far less likely.",
                .min = 1e-3,
                .max = 1e3},
               sampling.repeat_penalty);
}

void visit_template_options(Fields& fields, std::vector<std::string>& options) {
  fields.visit({.name = "template_option",
                .help = "A variable of the model's chat template, such as enable_thinking=false.",
                .value_name = "NAME=VALUE"},
               options);
}

Json parse_template_options(const std::vector<std::string>& options) {
  Json all = Json::object();
  for (const std::string& option : options) {
    const size_t equals = option.find('=');
    if (equals == 0 || equals == std::string::npos)
      throw_usage(cat("--template-option: expected NAME=VALUE, found '", option, "'"));
    const std::string value = option.substr(equals + 1);
    const Json parsed = Json::parse(value, nullptr, false);
    all[option.substr(0, equals)] = parsed.is_discarded() ? Json(value) : parsed;
  }
  return all;
}

}  // namespace slmc
