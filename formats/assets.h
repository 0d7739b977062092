// The texts beside a model's weights.
#pragma once

#include <string>

namespace slmc {

/// The chat template that tokenizer_config.json holds: a text, or a list of named ones of which
/// "default" counts. "" if there is none. Throws Error(kBadInput) naming `where`.
std::string configured_template(const std::string& tokenizer_config, const std::string& where);

}  // namespace slmc
