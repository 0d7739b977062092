// Which type each tensor gets: the scheme's table, then the caller's rules.
#pragma once

#include <regex>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"
#include "quantize/scheme.h"

namespace slmc {

/// 'REGEX=TYPE': matrices whose canonical name contains a match get TYPE.
struct Rule {
  std::string text;
  std::regex pattern;  ///< ECMAScript; searched, so anchor it to match whole names.
  DType type = DType::kF32;
};

/// Throws Error(kUsage) for a text without '=', a bad expression or an unknown type;
/// Error(kUnsupported) for a type that cannot be written yet.
std::vector<Rule> parse_rules(const std::vector<std::string>& texts);

/// The scheme's choice for each of `tensors`, an architecture's; vectors always stay f32.
/// `weighted`: the method weighs errors by statistics, which some mixes heed.
std::vector<TypeChoice> choose_types(const Architecture& arch,
                                     const std::vector<TensorInfo>& tensors, const Scheme& scheme,
                                     bool weighted);

/// The choice for every tensor of the model, in its order. The first rule that matches wins over
/// the scheme; vectors always stay f32. Throws Error(kUnsupported) when a rule's type does not
/// divide a tensor's rows, Error(kUsage) when a rule matches no matrix.
std::vector<TypeChoice> choose_types(const Model& model, const Scheme& scheme,
                                     const std::vector<Rule>& rules, bool weighted = false);

}  // namespace slmc
